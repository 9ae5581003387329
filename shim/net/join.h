/*
 * The host's half of a pod's network: reads what the pod's network namespace has, and puts a tap
 * beside its interface. The kernel may take its time for that, and a namespace is a thread's, so it
 * is done by a thread of its own while the VM boots. The functions are for the loop's thread.
 */
#ifndef HUSK_SHIM_NET_JOIN_H
#define HUSK_SHIM_NET_JOIN_H

#include "base/err.h"
#include "base/loop.h"
#include "proto/agent.pb-c.h"

struct join;

/* Once. code 0: `tap` is the callee's then, for AttachTap, and `i` is what the guest is to have,
 * valid until join_free; tap -1 and i NULL: the namespace has no interface beside lo. code -errno:
 * neither. */
typedef void (*join_done)(int code, const struct err *err, int tap, const Agent__Interface *i,
			  void *arg);

/* `netns` is the path of a network namespace; never the host's own, which nobody gives away. */
int join_start(struct loop *l, const char *netns, join_done done, void *arg, struct join **ret,
	       struct err *err) must_check;
/* Waits for the thread if it still runs; `done` is not called any more. NULL is fine; may be called
 * by `done`. */
void join_free(struct join *j);

#endif
