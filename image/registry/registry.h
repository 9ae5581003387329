/*
 * Client of a registry (OCI distribution 1.1, Docker registry v2) on libcurl's multi interface: any
 * number of requests at once, one thread, no waiting except in registry_poll. Runs only inside
 * the worker's fetch process. It reads no file and no environment: all it needs is in its options.
 *
 * A registry is a list of endpoints (mirrors, then the server itself) that are tried in order. What
 * can get better (connections, timeouts, 408, 429, 5xx) is tried again, at the next endpoint at
 * once and, when all have failed, after a pause that grows (retry.h); a blob goes on by
 * Range where it stopped. What cannot (401, 403, 404, a wrong certificate) is not.
 *
 * Redirects: to http(s) only, never from https to http, and never from a registry elsewhere to this
 * machine or a link-local address; credentials, headers and client certificates do not follow them
 * to another host.
 *
 * Files: registry.c (the list of requests, endpoints), request.c (one request, from one
 * try to the next), exchange.c (one HTTP exchange), token.c (Bearer tokens),
 * sink.c (where a layer's bytes go), retry.c, auth.c, proxy.c (pure).
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
	const char *media_type; /* "" = not said */
	/* layers */
	uint64_t fetched;
	/* calls: what was answered; "" = not said */
	long status;
	const char *location, *range, *digest;
	/* failures: trying again may help, because other endpoints are left or what had been there
	 * from before is not trusted any more */
	bool again;
};

/*
 * code 0: done. Otherwise err is set (and of `r` only `again`; of a call also what was answered, if
 * anything). The request is gone when this is called.
 */
typedef void (*registry_done_fn)(void *arg, uint32_t id, int code, const struct registry_result *r,
				 const struct err *err);
typedef void (*registry_progress_fn)(void *arg, uint32_t id, uint64_t fetched);

enum registry_op {
	REGISTRY_MANIFEST, /* by reference: tag or digest */
	REGISTRY_BLOB,	   /* a small one, into memory */
	REGISTRY_LAYER,	   /* into descriptors */
	REGISTRY_CALL,	   /* any method, for pushing */
};

struct registry_request {
	enum registry_op op;
	uint32_t id;
	const char *repository; /* "library/busybox"; NULL for calls: of none */
	const char *reference;	/* manifests */
	const char *digest;	/* blobs */
	uint64_t size;		/* blobs: what the manifest says */
	uint64_t max;		/* documents and calls: of the answer */
	/* Layers. Both are taken over also on failure, and closed at the end; -1 = none. */
	int file_fd;   /* O_RDWR | O_APPEND: takes all bytes, and has the first `have` already */
	int pipe_fd;   /* gets all bytes of the blob, those that were there first */
	uint64_t have; /* of the file */
	/*
	 * Calls go to the first endpoint that can push. `path` is relative to /v2/
	 * ("a/b/blobs/uploads/"), or an absolute URL that the registry gave (Location).
	 */
	const char *method, *path;
	const char *scope; /* more than repository:<repository>:pull,push; NULL = none */
	const char *content_type, *content_range;
	int body_fd; /* borrowed until the end; -1 = no body */
	uint64_t body_at, body_len;
	/* NULL = those of registry_new */
	registry_done_fn done;
	void *arg;
};

int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret,
		 struct err *err) must_check;
void registry_free(struct registry *r); /* no callbacks from here */
/* Strings are copied. -EBUSY: REGISTRY_MAX_REQUESTS are under way. `done` is never called inside.
 */
int registry_start(struct registry *r, const struct registry_request *q,
		   struct err *err) must_check;
/* Waits until something happens (or for `extra_fd` to be readable, or timeout_ms), and works on it.
 */
int registry_poll(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err) must_check;

#endif
