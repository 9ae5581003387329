/* What the registry_*.c share. Inside of the fetch process, one thread. */
#ifndef HUSK_IMAGE_REGISTRY_INTERNAL_H
#define HUSK_IMAGE_REGISTRY_INTERNAL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "image/digest.h"
#include "image/hosts.h"
#include "image/registry/registry.h"
#include "image/registry/auth.h"
#include "image/registry/sink.h"

/* One host of the list, and what was learned about it. */
struct endpoint {
	struct host host;
	char *origin; /* "https://mirror.example:5000", with the port */
	char *name;   /* "mirror.example" */
	char *label;  /* for texts */
	struct curl_slist *headers;
	struct auth_challenge challenge; /* what it asks for */
	bool loopback;			 /* by its name */
	bool local;			 /* the last connection to it went to this machine */
	bool cold;			 /* did not answer: others first */
	bool lied;			 /* gave bytes with a wrong digest */
	bool no_range;			 /* does not do what Range asks for */
};

/* ---- one HTTP exchange, redirects included (exchange.c) ---- */

struct exchange_auth {
	const char *bearer;
	const char *user, *password;
};

struct exchange {
	struct registry *reg;
	struct endpoint *ep;
	CURL *easy;
	bool running;
	bool token_service; /* not the endpoint itself */
	bool at_home;	    /* with the endpoint itself, not where it sent us */
	bool left;	    /* has been somewhere else: our secrets do not come back with it */
	bool proxied;
	struct exchange_auth auth; /* for the endpoint itself; borrowed for the length of it */
	unsigned hops;
	char *url;
	struct curl_slist *headers; /* of the request, also after redirects */
	struct curl_slist *sent;    /* with those of this hop */
	size_t header_bytes;
	/* the request's body: a text (token services) or a part of a file */
	const char *form;
	int body_fd;
	uint64_t body_at, body_len, body_sent;
	/* what is asked for; borrowed for the length of exchange_start */
	const char *method; /* NULL = GET */
	bool document;	    /* has a time limit as a whole */
	/* the answer */
	long status;
	struct auth_challenge challenge;
	char media_type[256], location[2048], range[64], digest[128], content_range[128];
	struct buf body; /* unless `data` takes it */
	uint64_t max;
	struct err err; /* why a callback ended it */
	/* Bytes of a 200 or 206 answer; `len`, 0 = failure (err is set), CURL_WRITEFUNC_PAUSE. NULL
	 * = into `body`. */
	size_t (*data)(struct exchange *x, const char *data, size_t len);
	/* An answer of whatever status (0), or none (-errno, err is set). May free the exchange. */
	void (*done)(struct exchange *x, int code);
};

int exchange_init(struct exchange *x, struct registry *r, uint64_t max,
		  void (*done)(struct exchange *, int)) must_check;
void exchange_fini(struct exchange *x);
void exchange_no_headers(struct exchange *x);
int exchange_header(struct exchange *x, const char *fmt, ...) printf_like(2, 3) must_check;
int exchange_start(struct exchange *x, struct endpoint *ep, const char *url,
		   const struct exchange_auth *auth, struct err *err) must_check;
void exchange_stop(struct exchange *x);
/* From curl_multi_info_read. */
void exchange_on_curl(CURLMsg *m);
/* -EPROTO etc. for an answer that is not a good one; `who` begins the text. */
int exchange_status_error(const struct exchange *x, const char *who, const char *what,
			  bool authorized, struct err *err);
uint64_t exchange_retry_after(const struct exchange *x); /* seconds, 0 = not said */
/* "https://host:port" of a URL and its host alone (no brackets); the caller frees. */
int url_split(const char *url, char **ret_origin, char **ret_host, unsigned *ret_port,
	      struct err *err) must_check;

/* ---- Bearer tokens (token.c) ---- */

struct token;
struct tokens {
	struct token *list;
	size_t n;
	uint64_t serial;
};

/*
 * The token for what the endpoint asked for. 1: *ret is it; 0: it is on its way, *ret_wait is what
 * registry_token_ready will name; < 0.
 */
int token_get(struct registry *r, struct endpoint *ep, const char *scopes, const char **ret,
	      uint64_t *ret_wait, struct err *err) must_check;
/* It did not help: the next one is asked for anew. */
void token_forget(struct registry *r, const char *value);
void tokens_fini(struct registry *r);

/* ---- requests (request.c) ---- */

enum step {
	STEP_REPLAY,   /* what a layer's file has already */
	STEP_PAUSE,    /* until retry_ns, or until the token `waits` is there */
	STEP_EXCHANGE, /* the network */
	STEP_DRAIN,    /* all has come and is right; the pipe takes the rest */
};

struct request {
	struct exchange x; /* the first member: a callback's exchange is its request */
	struct request *next;
	enum registry_op op;
	enum step step;
	uint32_t id;
	registry_done_fn done;
	void *arg;
	char *repository, *path, *scopes, *method, *content_type, *content_range;
	char digest[DIGEST_LEN + 1]; /* "" = unknown: a tag */
	struct sink sink;
	uint64_t last_progress_ns;
	bool paused; /* libcurl holds data back until the pipe has room */
	/* where and how often */
	struct endpoint *ep;
	uint32_t tried, refused; /* endpoints: in this round; for good */
	uint32_t sources;	 /* that have given bytes of the layer */
	unsigned rounds, resumes;
	uint64_t round_start; /* sink.done then */
	uint64_t retry_ns, after_s, waits;
	/* this try */
	uint64_t skip; /* bytes of an answer to a Range that was ignored */
	bool authorized, asked_again, began;
	char *bearer;	       /* the token sent */
	struct err mirror_err; /* the first failure of a mirror */
};

void request_free(struct request *q);
/* What it can do by itself now; may end it. */
void request_work(struct request *q, uint64_t now);

/* ---- the client (registry.c) ---- */

struct registry {
	CURLM *multi;
	char *host, *user, *password, *identity_token;
	char *token; /* given, to be used as it is */
	char *http_proxy, *https_proxy, *no_proxy;
	unsigned retry_base_ms, stall_s;
	struct endpoint endpoints[HOSTS_MAX];
	size_t n_endpoints;
	struct tokens tokens;
	bool answered; /* somebody has, once */
	struct request *list;
	unsigned n;
	registry_done_fn done;
	registry_progress_fn progress;
	void *arg;
};

/* NULL gives NULL; *ok becomes false without memory. */
char *registry_copy(const char *s, bool *ok);
/* (request.c) Requests that wait for the token go on, or fail with it (temporary: may be
 * tried again). */
void registry_token_ready(struct registry *r, uint64_t id, int code, bool temporary,
			  uint64_t after_s, const struct err *err);

#endif
