/*
 * Pushing a blob or a manifest, over the calls of registry.h: is it there, can it be mounted from
 * another repository, else an upload, which goes on where it broke when the registry can (and from
 * the start when not). Runs in the fetch process.
 */
#ifndef HUSK_IMAGE_REGISTRY_PUSH_H
#define HUSK_IMAGE_REGISTRY_PUSH_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct registry;
struct push;

#define PUSH_MAX_BREAKS 5   /* without a byte of progress */
#define PUSH_MAX_RESTARTS 3 /* of an upload, from its start */

enum push_how { PUSH_SENT, PUSH_THERE, PUSH_MOUNTED };
const char *push_how_name(enum push_how how); /* "sent", "there", "mounted" */

struct push_request {
	uint32_t id; /* of registry_progress_fn */
	const char *repository;
	const char *digest;
	uint64_t size;
	const char *from;      /* another repository that may have the blob; NULL = none */
	const char *reference; /* a manifest: tag or digest; NULL = a blob */
	const char *media_type;
	int fd; /* the bytes, taken over also on failure; -1: only if it need not be sent */
};

/* Exactly once when push_start returns 0, perhaps inside it. */
typedef void (*push_done_fn)(void *arg, uint32_t id, int code, enum push_how how,
			     const struct err *err);

int push_start(struct registry *r, const struct push_request *q, push_done_fn done, void *arg,
	       struct err *err) must_check;

#endif
