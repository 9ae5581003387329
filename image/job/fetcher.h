/*
 * huskd's end of one process that fetches, from a registry or from an archive
 * (base/proto/image_worker.proto). What comes from it is not trusted: messages are bounded and
 * checked, and answers are those of requests under way; documents still have to be verified by the
 * caller. Loop thread.
 */
#ifndef HUSK_IMAGE_JOB_FETCHER_H
#define HUSK_IMAGE_JOB_FETCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct credentials;
struct fetcher;
struct hosts;
struct image_auth;
struct procs;
struct Worker__Images;

enum fetcher_pushed { FETCHER_SENT, FETCHER_PRESENT, FETCHER_MOUNTED };

/*
 * Each request ends with exactly one of `document`, `images`, `done`, `pushed` (which one is said
 * at the request) or `error`; its id may be used again then. Those that no request of the owner has
 * as its answer may be NULL, and so may `progress`. Each may call fetcher_free.
 */
struct fetcher_ops {
	void (*document)(void *arg, uint32_t id, const void *data, size_t len);
	void (*images)(void *arg, uint32_t id, const struct Worker__Images *images);
	void (*done)(void *arg, uint32_t id, uint64_t bytes);
	void (*pushed)(void *arg, uint32_t id, enum fetcher_pushed how);
	/* Bytes so far, while a layer or a push is under way. */
	void (*progress)(void *arg, uint32_t id, uint64_t bytes);
	/* id 0: the process itself has failed or died, and nothing more comes. again: a new request
	 * may find other bytes, at another mirror or without what there was from before. */
	void (*error)(void *arg, uint32_t id, int code, bool again, const struct err *err);
};

/* What is the same for all registries. */
struct fetcher_config {
	char *hosts_dir;	/* certs.d of containerd (hosts.h); NULL = none */
	unsigned retry_base_ms; /* before the second try */
	unsigned stall_s;	/* without bytes; 0 = the worker's own, for both */
};

/* What the process is told about its registry. Copied; NULL = none. */
struct fetcher_options {
	const char *host; /* as in the image's name */
	const struct hosts *hosts;
	const char *user, *password, *token, *identity_token;
	unsigned retry_base_ms, stall_s; /* as in fetcher_config */
	/* An archive of images instead of a registry, and no other option; borrowed. */
	bool from_archive;
	int archive_fd;
};

/* Proxies are those of huskd's environment. */
int fetcher_new(struct procs *ps, const struct fetcher_options *o, const struct fetcher_ops *ops,
		void *arg, struct fetcher **ret, struct err *err) must_check;
/* For images of `host`, by what hosts.toml says of it. *c, which outlives the call for the caller
 * to free also on failure, becomes `auth` (NULL = none). */
int fetcher_open(struct procs *ps, const struct fetcher_config *config, const char *host,
		 const struct image_auth *auth, struct credentials *c,
		 const struct fetcher_ops *ops, void *arg, struct fetcher **ret,
		 struct err *err) must_check;
void fetcher_free(struct fetcher *f); /* kills the process; NULL is fine */

/*
 * Requests. id: not 0, and of no other one under way. -EBUSY: WIRE_MAX_REQUESTS are under way;
 * -EIO, -EAGAIN: the process does not take them; -ENOMEM. Descriptors stay the caller's, who may
 * close them after the call.
 */

/* -> document */
int fetcher_manifest(struct fetcher *f, uint32_t id, const char *repository, const char *reference,
		     struct err *err) must_check;
/* -> document */
int fetcher_blob(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		 uint64_t size, struct err *err) must_check;
/* What an archive has -> images. expand_fd: an empty file, for the archive if it is compressed. */
int fetcher_list(struct fetcher *f, uint32_t id, int expand_fd, struct err *err) must_check;
/* Are the credentials right? -> done */
int fetcher_ping(struct fetcher *f, uint32_t id, struct err *err) must_check;

struct fetcher_push {
	const char *repository, *digest;
	uint64_t size;
	int fd;			/* the bytes, from their start; -1: only if it need not be sent */
	const char *from;	/* a repository of this registry that may have it; NULL = none */
	const char *reference;	/* a manifest; NULL = a blob */
	const char *media_type; /* of a manifest */
};
/* -> pushed */
int fetcher_push(struct fetcher *f, uint32_t id, const struct fetcher_push *p,
		 struct err *err) must_check;

struct fetcher_layer {
	const char *digest;
	uint64_t size;
	int file_fd; /* takes the bytes and has the first `have` of them; -1 = none */
	uint64_t have;
	int pipe_fd; /* gets all bytes, those that were there first; -1 = none */
};
/* -> done */
int fetcher_layer(struct fetcher *f, uint32_t id, const char *repository,
		  const struct fetcher_layer *l, struct err *err) must_check;

#endif
