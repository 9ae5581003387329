/*
 * Client of a registry (OCI distribution 1.1, Docker registry v2) on libcurl's multi interface: any
 * number of requests at once, one thread, no waiting except in registry_poll. Runs only inside the
 * worker's fetch process. It reads no file and no environment: all it needs is in its options.
 *
 * A registry is a list of endpoints (mirrors, then the server itself) that are tried in order. What
 * can get better (connections, timeouts, 408, 429, 5xx) is tried again, at the next endpoint at
 * once and, when all have failed, after a pause that grows (retry.h); a blob continues by Range
 * where it stopped. What cannot (401, 403, 404, a wrong certificate) is not.
 *
 * Redirects: to http(s) only, never from https to http, and never to a place more private than the
 * registry's own (image/address.h), as for token services; credentials, headers and client
 * certificates do not follow them to another host.
 *
 * Files: registry.c (the list of requests, endpoints); request.c (what all requests have in common:
 * from one try to the next), over it document.c, layer.c and call.c (the kinds of requests) and
 * push.c; below it exchange.c (one HTTP exchange), token.c (Bearer tokens), sink.c (where a layer's
 * bytes go), retry.c and auth.c (pure).
 */
#ifndef HUSK_IMAGE_REGISTRY_REGISTRY_H
#define HUSK_IMAGE_REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/hosts.h"

#define REGISTRY_CONNECT_TIMEOUT_S 15
#define REGISTRY_LOW_SPEED_BYTES 512 /* fewer bytes a second than this ... */
#define REGISTRY_STALL_S 30	     /* ... for so long end a transfer */
/* All layers of a registry together, on an average over REGISTRY_PACE_STALLS * stall_s seconds in
 * which it could have sent: who stays below has not sent what was asked for. */
#define REGISTRY_PACE_BYTES (8 * KIB) /* a second */
#define REGISTRY_PACE_STALLS 10u
#define REGISTRY_DOCUMENT_TIMEOUT_S 60
#define REGISTRY_MAX_REDIRECTS 5
#define REGISTRY_MAX_HEADERS (256 * KIB) /* of one answer */
#define REGISTRY_MAX_TOKEN (64 * KIB)	 /* a token service's answer */
#define REGISTRY_MAX_TOKENS 64		 /* kept */
#define REGISTRY_MAX_REQUESTS 16	 /* at once */
#define REGISTRY_MAX_RESUMES 4096	 /* of one blob */

struct curl_waitfd;
struct registry;

struct registry_options {
	const char *host;	   /* as in the image's name, for texts */
	const struct hosts *hosts; /* where to go; copied */
	/* One of these, or none = anonymous. */
	const char *user, *password;
	const char *identity_token; /* a refresh token for the token service */
	const char *token;	    /* a Bearer token to use as it is */
	const char *http_proxy, *https_proxy, *no_proxy;
	unsigned retry_base_ms, stall_s; /* 0 = RETRY_BASE_MS, REGISTRY_STALL_S */
};

struct registry_result {
	/* documents and calls; NULL for layers */
	const void *data;
	size_t len;
	/* layers */
	uint64_t fetched;
	/* calls: what was answered; "" = not said */
	long status;
	const char *location, *range, *digest;
	/* failures: a new request may succeed, because it goes to other endpoints, or because what
	 * the file had from before is not trusted any more */
	bool again;
};

/*
 * code 0: done. Otherwise err is set (and of `res` only `again`; of a call also what was answered,
 * if anything). The request is gone when this is called.
 */
typedef void (*registry_done_fn)(void *arg, uint32_t id, int code,
				 const struct registry_result *res, const struct err *err);
typedef void (*registry_progress_fn)(void *arg, uint32_t id, uint64_t fetched);

/* A manifest, or a small blob, into memory. */
struct registry_document {
	uint32_t id;
	const char *repository; /* "library/busybox" */
	const char *reference;	/* a digest; of a manifest also a tag */
	uint64_t max;		/* bytes of the answer */
};

/*
 * A blob into descriptors. Both are taken over also on failure, and closed at the end; -1 = none.
 */
struct registry_layer {
	uint32_t id;
	const char *repository, *digest;
	uint64_t size; /* what the manifest says */
	int file_fd;   /* O_RDWR | O_APPEND: takes all bytes, and has the first `have` already */
	int pipe_fd;   /* gets all bytes of the blob, those that were there first */
	uint64_t have; /* of the file */
};

/*
 * Any method, to the first endpoint that can push. `path` is relative to /v2/
 * ("a/b/blobs/uploads/"), or an absolute URL that the registry gave (Location).
 */
struct registry_call {
	uint32_t id;
	const char *repository; /* NULL = of none */
	const char *method, *path;
	const char *scope; /* more than repository:<repository>:pull,push; NULL = none */
	const char *content_type, *content_range; /* NULL = none */
	int body_fd;				  /* borrowed until the end; -1 = no body */
	uint64_t body_at, body_len;
	uint64_t max; /* bytes of the answer */
	registry_done_fn done;
	void *arg;
};

/* Lets libcurl and TLS load what they need, for processes that cannot load anything later. Twice is
 * fine. */
int registry_prepare(struct err *err) must_check;
int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret,
		 struct err *err) must_check;
void registry_free(struct registry *reg); /* no callbacks from here; NULL is fine */
/*
 * Start a request. `done` (of registry_new, of the call) comes exactly once when they return 0,
 * never inside them. Strings are copied. -EBUSY: REGISTRY_MAX_REQUESTS are under way; -EPROTO: a
 * digest is none; -ENOMEM.
 */
int registry_manifest(struct registry *reg, const struct registry_document *in,
		      struct err *err) must_check;
int registry_blob(struct registry *reg, const struct registry_document *in,
		  struct err *err) must_check;
int registry_layer(struct registry *reg, const struct registry_layer *in,
		   struct err *err) must_check;
int registry_call(struct registry *reg, const struct registry_call *in, struct err *err) must_check;
/* Waits until something happens (or for `extra_fd` to be readable, or timeout_ms), and works on it.
 * Callbacks are called from here. */
int registry_poll(struct registry *reg, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err) must_check;

#endif
