/*
 * What Kubernetes calls remote command: the channels of a process, and the JSON on two of them.
 * Sizes come from a hostile client. Pure functions.
 */
#ifndef HUSK_CRI_STREAM_REMOTE_H
#define HUSK_CRI_STREAM_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define REMOTE_RESIZE_MAX 256u /* bytes of one object on the channel for sizes */

/* As numbered by the WebSocket protocols. */
enum channel {
	CHANNEL_IN,
	CHANNEL_OUT,
	CHANNEL_ERR,
	CHANNEL_STATUS, /* "error" in the protocols */
	CHANNEL_RESIZE,
	CHANNELS
};

/* From what SPDY's clients say in "streamtype"; CHANNELS = none of them. */
enum channel remote_channel(const char *name);

/*
 * The text for CHANNEL_STATUS, a metav1.Status, or with `plain` (before v4) one for people; "" =
 * nothing to send. The caller frees; NULL without memory.
 */
char *remote_exit_status(int exit_code, bool plain);
/* exit_code: what shells would say of such a start (127), for clients of our own; 0 = nothing. */
char *remote_failure(const char *why, int exit_code, bool plain);

/* Sizes as they come in; all zero at the start. */
struct remote_sizes {
	char text[REMOTE_RESIZE_MAX];
	size_t n;
};
/* Takes bytes up to the end of an object: how many, with *width and *height set, both 0 when it
 * says no size. -EMSGSIZE: no object ends. */
int remote_size(struct remote_sizes *s, const uint8_t *data, size_t n, unsigned *width,
		unsigned *height) must_check;

#endif
