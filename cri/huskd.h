/*
 * The daemon: what its parts share. Made by main.c, handed to every handler as its `arg`. Nothing
 * here knows runtime/ or images/. Loop's thread.
 */
#ifndef HUSK_CRI_HUSKD_H
#define HUSK_CRI_HUSKD_H

#include "cri/config.h"
#include "cri/store/state.h"

struct backend;
struct image_store;
struct loop;
struct net;
struct rpc_server;
struct stream_server;

struct huskd {
	struct loop *loop;
	struct config config;
	struct statedb *db;
	struct state state;
	struct image_store *images;
	struct net *net; /* net/net.h; NULL = network.mode is none */
	struct rpc_server *rpc;
	struct stream_server *streams; /* exec, attach; stream/server.h */
	struct backend *backend;       /* runtime/backend.h */
	unsigned execs;		       /* running ExecSync calls */
	size_t exec_bytes;	       /* their output, of EXEC_OUTPUT_TOTAL */
	unsigned exec_streams;	       /* commands with a client, of EXEC_STREAMS_MAX */
	unsigned attach_streams;       /* of ATTACH_STREAMS_MAX */
	size_t exec_waiting;	       /* bytes of EXEC_WAITING_MAX */
};

#endif
