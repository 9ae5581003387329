/* What the files of registry/ share. Inside of the fetch process, one thread. */
#ifndef HUSK_IMAGE_REGISTRY_INTERNAL_H
#define HUSK_IMAGE_REGISTRY_INTERNAL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "image/address.h"
#include "image/digest.h"
#include "image/hosts.h"
#include "image/registry/registry.h"
#include "image/registry/auth.h"
#include "image/registry/sink.h"

/* One host of the list, and what was learned about it. */
struct endpoint {
	struct host host;
	char *origin;			 /* "https://mirror.example:5000", with the port */
	char *name;			 /* "mirror.example" */
	char *label;			 /* for texts */
	struct auth_challenge challenge; /* what it asks for */
	bool loopback;			 /* by its name */
	bool connected;			 /* its address was seen: not so through a proxy */
	enum address_kind kind;		 /* where it is: by its name, then by its addresses */
	bool unreachable; /* it did not answer the last time: the others are asked first */
	bool bad_digest;  /* it gave bytes with a wrong digest: not asked for blobs any more */
	bool no_range;	  /* it does not answer a Range request as it should */
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
	bool paused;	    /* `data` has asked for it: see exchange_resume */
	bool token_service; /* of the endpoint, not the endpoint itself */
	bool at_endpoint;   /* this hop goes to the endpoint itself, not to where it sent us */
	bool cross_origin;  /* a hop went to another origin: no secrets from then on */
	bool proxied;
	struct exchange_auth auth; /* for the endpoint itself; borrowed until it has ended */
	unsigned hops;
	char *url;
	struct curl_slist *headers; /* of the request, also after redirects */
	struct curl_slist *sent;    /* with those of this hop */
	size_t header_bytes;
	/* the request's body: a text (token services) or a part of a file */
	const char *form;
	int body_fd;
	uint64_t body_at, body_len, body_sent;
	/* what is asked for; borrowed until it has ended */
	const char *method; /* NULL = GET */
	bool document;	    /* has a time limit as a whole */
	/* the answer */
	long status;
	struct auth_challenge challenge;
	char location[2048], range[64], digest[128], content_range[128];
	struct buf body; /* unless `data` takes it */
	uint64_t max;
	struct err err; /* why a callback ended it */
	/*
	 * Bytes of a 200 or 206 answer; returns `len`, 0 = failure (err is set), or
	 * CURL_WRITEFUNC_PAUSE: the same bytes come again after exchange_resume. NULL = into
	 * `body`.
	 */
	size_t (*data)(struct exchange *x, const char *data, size_t len);
	/* An answer of whatever status (0), or none (-errno, err is set). May free the exchange. */
	void (*done)(struct exchange *x, int code);
};

int exchange_init(struct exchange *x, struct registry *reg, uint64_t max,
		  void (*done)(struct exchange *, int)) must_check;
void exchange_fini(struct exchange *x);
void exchange_no_headers(struct exchange *x);
int exchange_header(struct exchange *x, const char *fmt, ...) printf_like(2, 3) must_check;
int exchange_start(struct exchange *x, struct endpoint *ep, const char *url,
		   const struct exchange_auth *auth, struct err *err) must_check;
void exchange_stop(struct exchange *x);
/* If it is paused: data may come again. */
void exchange_resume(struct exchange *x);
/* From curl_multi_info_read. */
void exchange_on_curl(CURLMsg *m);
/* The error that a status stands for (never 0): "<who> has no such <object> (404)". authorized: the
 * request had credentials. */
int exchange_status_error(const struct exchange *x, const char *who, const char *object,
			  bool authorized, struct err *err);
uint64_t exchange_retry_after(const struct exchange *x); /* seconds; 0 = no such header */
/* "https://host:port" of a URL and its host alone (no brackets); the caller frees. */
int url_split(const char *url, char **ret_origin, char **ret_host, unsigned *ret_port,
	      struct err *err) must_check;

/* ---- Bearer tokens (token.c) ---- */

struct token;
struct tokens {
	struct token *list;
	size_t n;
	uint64_t serial;
	/* A token that token_get has promised has come (0), or has failed (-errno; temporary:
	 * another try may help, after_s seconds later at the earliest). Set by the owner. */
	void (*ready)(struct registry *reg, uint64_t id, int code, bool temporary, uint64_t after_s,
		      const struct err *err);
};

/*
 * The token for what the endpoint's challenge asks for, with these scopes. Returns
 *	1: there is one: *ret, valid until the next call of a token function;
 *	0: it has been asked for: `ready` will be called with the id in *ret_id;
 *	-errno.
 */
int token_get(struct registry *reg, struct endpoint *ep, const char *scopes, const char **ret,
	      uint64_t *ret_id, struct err *err) must_check;
/* The registry refused it: the next token_get asks for a new one. */
void token_forget(struct registry *reg, const char *value);
void tokens_fini(struct registry *reg);

/* ---- requests: what all kinds have in common (request.c) ---- */

enum step {
	STEP_REPLAY,   /* layers: reading again what their file has already */
	STEP_PAUSE,    /* until retry_ns, or until the token `token_id` is there */
	STEP_EXCHANGE, /* the network */
	STEP_DRAIN,    /* layers: all has come and is right; the pipe takes the rest */
};

struct request;

/* What a kind of request does in its own way. A member may be NULL unless it says otherwise. */
struct request_ops {
	const char *object; /* "the registry has no such <object>" */
	bool one_host;	    /* only the first host that can do it: an upload stays where it began */
	/* Adds headers for this try (exchange_header). -ENOMEM. */
	int (*headers)(struct request *q);
	/* Is this status the answer that was asked for? Never NULL. */
	bool (*is_answer)(long status);
	/* Such an answer has come to its end: request_end, or request_try_failed. Never NULL. */
	void (*answered)(struct request *q);
	/* Another status. True: request_again has been called, it is no failure. */
	bool (*refused)(struct request *q);
	/* Every host has failed once more. False: that is enough of it. */
	bool (*another_round)(struct request *q);
	/* Bytes that came before a failure; for its text. */
	uint64_t (*received)(const struct request *q);
	/* Called in each round of registry_poll: what it can do without the network. May end it. */
	void (*work)(struct request *q);
	/* Has `work` something to do that waits for nothing? */
	bool (*ready)(const struct request *q);
	/* The descriptor that `work` waits to be writable, -1 = none. */
	int (*blocked_fd)(const struct request *q);
	/* At the end: what the owner gets, instead of the answer's body. Descriptors are closed
	 * here. */
	void (*result)(struct request *q, struct registry_result *res);
	void (*fini)(struct request *q); /* frees what the kind has, not `q` */
};

/* The first member of each kind's own struct. */
struct request {
	struct exchange x; /* the first member: a callback's exchange is its request */
	const struct request_ops *ops;
	struct request *next;
	enum step step;
	uint32_t id;
	registry_done_fn done;
	void *arg;
	char *path;	     /* below /v2/, or a whole URL; owned */
	char *scopes;	     /* to ask a token for; owned */
	unsigned capability; /* HOST_*: what a host must be allowed to */
	bool changes; /* what the registry has: a try that may have arrived is not repeated */
	uint64_t last_progress_ns;
	/* where and how often */
	struct endpoint *ep;
	uint32_t tried, refused; /* endpoints, as bits: in this round; for good */
	unsigned rounds;
	uint64_t retry_ns, after_s, token_id;
	/* this try */
	bool authorized, asked_again;
	char *bearer;	       /* the token that was sent; owned */
	struct err mirror_err; /* the first failure of a mirror */
};

/*
 * How a kind makes a request: calloc of its own struct; request_init; then its capability, path and
 * scopes (NULL: no memory for them), and step when it is to begin with ops->work; request_start.
 * When request_init fails (-ENOMEM) there is nothing but the struct to free.
 */
int request_init(struct request *q, struct registry *reg, const struct request_ops *ops,
		 uint32_t id, uint64_t max_body) must_check;
/* Puts it into the list. It begins in the next registry_poll, so that `done` is never called from
 * here. Takes it over, also on failure. -EBUSY: too many requests; -ENOMEM. */
int request_start(struct request *q, struct err *err) must_check;
/* Frees one that is not in the list, without calling anybody. */
void request_free(struct request *q);
/* Takes it out of the list and frees it, and calls `done` in between. again: a new request may find
 * other bytes. */
void request_end(struct request *q, int code, bool again, const struct err *err);
/* The next host that can do it, in its turn. */
void request_try_next(struct request *q);
/* The same host once more, with a fresh exchange. */
void request_again(struct request *q);
/* This try has failed: another host, another round after a pause (of after_s seconds at least), or
 * the end. temporary: the same host may do better later. */
void request_try_failed(struct request *q, int code, bool temporary, uint64_t after_s,
			struct err *err);
/* Hosts that can do it, as bits. */
uint32_t request_hosts(const struct request *q);
uint32_t endpoint_bit(const struct registry *reg, const struct endpoint *ep);
/* Tells the owner at most ten times a second. */
void request_progress(struct request *q, uint64_t bytes);
/* What it can do by itself now; may end it. */
void request_work(struct request *q, uint64_t now);
/* tokens.ready */
void request_on_token(struct registry *reg, uint64_t id, int code, bool temporary, uint64_t after_s,
		      const struct err *err);

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
	bool answered; /* one of the hosts has, once */
	struct request *list;
	unsigned n;
	/* the pace of layers: time in which one of them waited for the network alone */
	uint64_t pace_ns, pace_bytes, pace_last_ns;
	bool pace_runs;
	registry_done_fn done;
	registry_progress_fn progress;
	void *arg;
};

/* In each round: looks at the pace, and ends the tries of layers that are too slow (layer.c). */
void layers_check_pace(struct registry *reg, uint64_t now);

#endif
