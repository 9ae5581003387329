/*
 * Two network namespaces for a test of a pod's network: "node" with a bridge, "pod" with eth0, a
 * veth into that bridge, as the plug-in bridge makes it. Neither is connected to anything else, and
 * both go when the test's process does, however it ends. Needs root and iproute2. Dies as
 * shim_client.h does.
 */
#ifndef HUSK_TEST_LIB_SHIM_POD_NET_H
#define HUSK_TEST_LIB_SHIM_POD_NET_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

#define NODE4 "192.0.2.1"
#define NODE6 "2001:db8::1"
#define POD4 "192.0.2.2"
#define POD6 "2001:db8::2"
#define POD_MAC "0a:58:c0:00:02:02"
#define POD_MTU 1400

/* Once in a program. */
void pod_net_make(void);
/* Path of the pod's namespace; of the node's. */
const char *pod_net_path(void);
const char *node_net_path(void);
/* A command of ip(8), run in the pod's namespace; returns its status. */
int pod_net_ip(const char *fmt, ...) printf_like(1, 2);

/* From the node to the pod: an echo request; a stream of n bytes to an echo server, byte-exact,
 * with segments that fit POD_MTU. 0, or why not on stderr. */
int node_ping(const char *ip);
int node_echo(const char *ip, unsigned port, uint64_t n);
/* A server on the node, for one connection, from which n bytes come; node_served waits for it. */
pid_t node_serve(unsigned port, uint64_t n);
int node_served(pid_t server);

#endif
