/*
 * Client of a registry (OCI distribution 1.1, Docker registry v2) on libcurl's multi interface: any
 * number of requests at once, one thread, no waiting except in registry_poll. Runs only inside
 * the worker's fetch process.
 *
 * HTTP for hosts on this machine, HTTPS for all others. Anonymous, Basic, and Bearer by the token
 * flow. Redirects: to http(s) only, never from https to http, and never from a registry elsewhere
 * to this machine or a link-local address. A layer's bytes are counted and hashed on their way out.
 */
#ifndef HUSK_IMAGE_REGISTRY_H
#define HUSK_IMAGE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define REGISTRY_CONNECT_TIMEOUT_S 15
#define REGISTRY_LOW_SPEED_BYTES 512 /* fewer bytes a second than this ... */
#define REGISTRY_LOW_SPEED_S 30	     /* ... for so long end a transfer */
#define REGISTRY_DOCUMENT_TIMEOUT_S 60
#define REGISTRY_MAX_REDIRECTS 5
#define REGISTRY_MAX_TOKEN (64 * KIB) /* a token service's answer */
#define REGISTRY_MAX_REQUESTS 16      /* at once */

struct curl_waitfd;
struct registry;

struct registry_options {
	const char *host;	     /* "127.0.0.1:5000", "registry.example" */
	const char *user, *password; /* NULL = anonymous */
	const char *token;	     /* a Bearer token to use as it is */
};

struct registry_result {
	/* documents; NULL for layers */
	const void *data;
	size_t len;
	const char *media_type; /* "" = not said */
	/* layers */
	uint64_t fetched;
};

/* code 0: done. Otherwise err is set. The request is gone when this is called. */
typedef void (*registry_done_fn)(void *arg, uint32_t id, int code, const struct registry_result *r,
				 const struct err *err);
typedef void (*registry_progress_fn)(void *arg, uint32_t id, uint64_t fetched);

struct registry_request {
	uint32_t id;
	const char *repository; /* "library/busybox" */
	const char *reference;	/* manifests: tag or digest; NULL = a blob */
	const char *digest;	/* blobs */
	uint64_t size; /* blobs: what the manifest says; documents: not more than `max` either */
	uint64_t max;  /* documents */
	int out_fd;    /* layers: a pipe, taken over also on failure, closed at the end; -1 = a
			  document */
};

int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret,
		 struct err *err) must_check;
void registry_free(struct registry *r); /* no callbacks from here */
/* Strings are copied. -EBUSY: REGISTRY_MAX_REQUESTS are under way. */
int registry_start(struct registry *r, const struct registry_request *q,
		   struct err *err) must_check;
/* Waits until something happens (or for `extra_fd` to be readable, or timeout_ms), and works on it.
 */
int registry_poll(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err) must_check;

#endif
