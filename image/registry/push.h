/*
 * Pushing a blob or a manifest, over the calls of registry.h: if the registry does not have it and
 * cannot mount it from another repository, it is uploaded. A broken upload continues where it
 * stopped, or starts again when the registry cannot do that. Runs in the fetch process, one thread.
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

/* PRESENT: the registry had it already. MOUNTED: it took it from another repository. */
enum push_how { PUSH_SENT, PUSH_PRESENT, PUSH_MOUNTED };

struct push_request {
	uint32_t id; /* of registry_progress_fn */
	const char *repository;
	const char *digest;
	uint64_t size;
	const char *from;      /* another repository that may have the blob; NULL = none */
	const char *reference; /* a manifest: tag or digest; NULL = a blob */
	const char *media_type;
	int fd; /* the bytes, taken over also on failure; -1: -ENODATA if they are needed */
};

/* Called exactly once when push_start returns 0, perhaps inside it. */
typedef void (*push_done_fn)(void *arg, uint32_t id, int code, enum push_how how,
			     const struct err *err);

int push_start(struct registry *reg, const struct push_request *q, push_done_fn done, void *arg,
	       struct err *err) must_check;

#endif
