/* One request: which endpoint, which token, what an answer means, what comes after a failure. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/util.h"
#include "image/failure.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

#define PROGRESS_EVERY_NS (100 * NS_PER_MS)
#define MAX_SCOPES_TEXT 4096

static const char accept_manifest[] =
	"Accept: application/vnd.oci.image.index.v1+json, "
	"application/vnd.docker.distribution.manifest.list.v2+json, "
	"application/vnd.oci.image.manifest.v1+json, "
	"application/vnd.docker.distribution.manifest.v2+json";

static void try_next(struct request *q);

/* ---- the end ---- */

void request_free(struct request *q)
{
	exchange_fini(&q->x);
	if (q->op == REGISTRY_LAYER)
		sink_fini(&q->sink);
	free(q->repository);
	free(q->path);
	free(q->scopes);
	free(q->method);
	free(q->content_type);
	free(q->content_range);
	free(q->bearer);
	free(q);
}

static uint32_t bit(const struct registry *r, const struct endpoint *ep)
{
	return 1u << (ep - r->endpoints);
}

/* Ends the request: descriptors are closed before the answer goes out. */
static void finish(struct request *q, int code, bool again, const struct err *err)
{
	struct registry *r = q->x.reg;
	struct registry_result res = { .media_type = q->x.media_type,
				       .status = q->x.status,
				       .location = q->x.location,
				       .range = q->x.range,
				       .digest = q->x.digest,
				       .again = again };
	struct request **at = &r->list;

	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	r->n--;
	exchange_stop(&q->x);
	if (q->op == REGISTRY_LAYER) {
		res.fetched = q->sink.done;
		sink_fini(&q->sink);
	} else {
		res.len = buf_len(&q->x.body);
		res.data = res.len ? (const void *)buf_data(&q->x.body) : "";
	}
	q->done(q->arg, q->id, code, &res, err);
	request_free(q);
}

/* All endpoints have had their chance. The server's own reason counts; a mirror's goes along. */
static void give_up(struct request *q, int code, struct err *err)
{
	struct err whole = { 0 };

	if (q->mirror_err.code && !q->ep->host.mirror) {
		err_set(&whole, code, "%.300s (before that, %.180s)", err_text(err),
			err_text(&q->mirror_err));
		finish(q, code, false, &whole);
	} else {
		finish(q, code, false, err);
	}
}

/* ---- where and when next ---- */

/* Endpoints that can do this, as bits. */
static uint32_t able(const struct request *q)
{
	struct registry *r = q->x.reg;
	unsigned want = q->op == REGISTRY_CALL			    ? HOST_PUSH
			: q->op == REGISTRY_MANIFEST && !*q->digest ? HOST_RESOLVE
								    : HOST_PULL;
	uint32_t bits = 0;

	for (size_t k = 0; k < r->n_endpoints; k++) {
		struct endpoint *ep = &r->endpoints[k];

		if ((ep->host.capabilities & want) && !ep->lied)
			bits |= bit(r, ep);
		if (bits && q->op == REGISTRY_CALL) /* an upload stays where it began */
			break;
	}
	return bits;
}

/* The first that was not tried in this round, those that did not answer last time after the
 * others. NULL: the round is over. */
static struct endpoint *choose(const struct request *q)
{
	struct registry *r = q->x.reg;
	uint32_t left = able(q) & ~q->tried & ~q->refused;
	struct endpoint *cold = NULL;

	for (size_t k = 0; k < r->n_endpoints; k++) {
		struct endpoint *ep = &r->endpoints[k];

		if (!(left & bit(r, ep)))
			continue;
		if (!ep->cold)
			return ep;
		if (!cold)
			cold = ep;
	}
	return cold;
}

static uint32_t random_u32(void)
{
	uint32_t v;

	return getrandom(&v, sizeof(v), GRND_NONBLOCK) == sizeof(v) ? v : 0;
}

/* A round without luck: pause and begin another, or give up. */
static void round_over(struct request *q, int code, struct err *err)
{
	struct registry *r = q->x.reg;
	bool layer = q->op == REGISTRY_LAYER;
	unsigned max = r->answered ? RETRY_ROUNDS : RETRY_ROUNDS_FIRST;

	if (layer && q->sink.done >= q->round_start + RETRY_NEWS) {
		q->rounds = 0;
		q->round_start = q->sink.done;
	}
	if (++q->rounds >= max || !(able(q) & ~q->refused) ||
	    (layer && ++q->resumes > REGISTRY_MAX_RESUMES)) {
		give_up(q, code, err);
		return;
	}
	if (q->after_s > RETRY_MAX_AFTER_S) {
		code = err_wrap(err, code, "it asks to wait for %llu s",
				(unsigned long long)q->after_s);
		give_up(q, code, err);
		return;
	}
	q->tried = 0;
	q->step = STEP_PAUSE;
	q->waits = 0;
	q->retry_ns =
		now_mono_ns() +
		retry_delay_ms(r->retry_base_ms, q->rounds, random_u32(), q->after_s) * NS_PER_MS;
	q->after_s = 0;
}

/* This try has failed: another endpoint, another round, or the end. */
static void try_failed(struct request *q, int code, bool temporary, uint64_t after_s,
		       struct err *err)
{
	struct registry *r = q->x.reg;

	q->tried |= bit(r, q->ep);
	if (!temporary)
		q->refused |= bit(r, q->ep);
	q->after_s = MAX_OF(q->after_s, after_s);
	if (q->ep->host.mirror && !q->mirror_err.code)
		q->mirror_err = *err;
	if (choose(q))
		try_next(q);
	else if (!temporary && (!q->ep->host.mirror || !(able(q) & ~q->refused)))
		give_up(q, code, err); /* the server's word is the last one */
	else
		round_over(q, code, err);
}

/* ---- one try ---- */

static char *make_url(const struct request *q)
{
	const struct host *h = &q->ep->host;
	cleanup_free char *ns = NULL;
	char *escaped;

	if (strstr(q->path, "://"))
		return strdup(q->path);
	if (!h->ns)
		return str_fmt("%s/%s", h->url, q->path);
	escaped = curl_easy_escape(q->x.easy, q->x.reg->host, 0);
	ns = escaped ? strdup(escaped) : NULL;
	curl_free(escaped);
	return ns ? str_fmt("%s/%s%cns=%s", h->url, q->path, strchr(q->path, '?') ? '&' : '?', ns)
		  : NULL;
}

static int set_headers(struct request *q)
{
	int r = 0;

	exchange_no_headers(&q->x);
	if (q->op == REGISTRY_MANIFEST)
		r = exchange_header(&q->x, "%s", accept_manifest);
	if (r >= 0 && q->op == REGISTRY_LAYER && q->sink.done && !q->ep->no_range)
		r = exchange_header(&q->x, "Range: bytes=%llu-", (unsigned long long)q->sink.done);
	if (r >= 0 && q->content_type)
		r = exchange_header(&q->x, "Content-Type: %s", q->content_type);
	if (r >= 0 && q->content_range)
		r = exchange_header(&q->x, "Content-Range: %s", q->content_range);
	return r;
}

/* The scopes to ask for: ours, and what the challenge names besides (a mirror has other names). */
static void all_scopes(const struct request *q, char out[MAX_SCOPES_TEXT])
{
	const char *theirs = q->ep->challenge.scope;
	int n = snprintf(out, MAX_SCOPES_TEXT, "%s", q->scopes);

	/* What was learned by one repository's request says nothing of another one's. */
	if (*theirs && q->asked_again && !strstr(out, theirs) && n >= 0 && n < MAX_SCOPES_TEXT)
		snprintf(out + n, (size_t)(MAX_SCOPES_TEXT - n), " %s", theirs);
}

/* 1: *a is filled; 0: a token is on its way; < 0. */
static int authorize(struct request *q, struct exchange_auth *a, struct err *err)
{
	struct registry *r = q->x.reg;
	char scopes[MAX_SCOPES_TEXT];
	const char *value = NULL;
	int e;

	q->authorized = true;
	if (q->ep->host.login && r->token) {
		a->bearer = r->token;
	} else if (q->ep->challenge.scheme == AUTH_BEARER) {
		all_scopes(q, scopes);
		e = token_get(r, q->ep, scopes, &value, &q->waits, err);
		if (e <= 0)
			return e;
		free(q->bearer);
		q->bearer = strdup(value);
		if (!q->bearer)
			return err_set(err, -ENOMEM, "no memory");
		a->bearer = q->bearer;
	} else if (q->ep->challenge.scheme == AUTH_BASIC && q->ep->host.login && r->password) {
		a->user = r->user;
		a->password = r->password;
	} else {
		q->authorized = false;
	}
	return 1;
}

static void try_here(struct request *q)
{
	cleanup_free char *url = NULL;
	struct exchange_auth a = { 0 };
	struct err err = { 0 };
	int e = authorize(q, &a, &err);

	if (e == 0) {
		q->step = STEP_PAUSE;
		return;
	}
	if (e > 0) {
		url = make_url(q);
		e = url && set_headers(q) >= 0 ? exchange_start(&q->x, q->ep, url, &a, &err)
					       : err_set(&err, -ENOMEM, "no memory");
	}
	if (e < 0) {
		try_failed(q, e, false, 0, &err);
		return;
	}
	q->step = STEP_EXCHANGE;
	q->skip = 0;
	q->began = false;
}

static void try_next(struct request *q)
{
	struct endpoint *ep = choose(q);
	struct err err = { 0 };

	if (!ep) {
		err_set(&err, -ENOTSUP, "no host in hosts.toml is allowed to %s",
			q->op == REGISTRY_CALL			    ? "push"
			: q->op == REGISTRY_MANIFEST && !*q->digest ? "resolve tags"
								    : "pull");
		finish(q, err.code, false, &err);
		return;
	}
	q->ep = ep;
	q->asked_again = false;
	try_here(q);
}

/* ---- answers ---- */

/* "bytes FIRST-LAST/TOTAL": does it go on where we are? */
static bool range_fits(const struct request *q)
{
	unsigned long long first, last, total;
	int n = sscanf(q->x.content_range, "bytes %20llu-%20llu/%20llu", &first, &last, &total);

	return n >= 2 && first == q->sink.done && (n == 2 || total == q->sink.size);
}

/* The first bytes of an answer: is it what was asked for? */
static int layer_begins(struct request *q)
{
	q->began = true;
	if (q->x.status == 200)
		q->skip = q->sink.done;
	else if (!range_fits(q))
		return err_set(&q->x.err, -EREMOTEIO, "%s answers another range than asked for",
			       q->ep->label);
	return 0;
}

static void show_progress(struct request *q)
{
	struct registry *r = q->x.reg;
	uint64_t now = now_mono_ns();

	if (now - q->last_progress_ns < PROGRESS_EVERY_NS)
		return;
	q->last_progress_ns = now;
	r->progress(r->arg, q->id,
		    q->op == REGISTRY_CALL ? q->x.body_at + q->x.body_sent : q->sink.done);
}

static size_t on_layer(struct exchange *x, const char *data, size_t len)
{
	struct request *q = (struct request *)x;
	size_t all = len;

	if (sink_full(&q->sink)) {
		q->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!q->began && layer_begins(q) < 0) {
		q->ep->no_range = true;
		return 0;
	}
	if (q->skip) {
		size_t n = MIN_OF(q->skip, (uint64_t)len);

		q->skip -= n;
		data += n;
		len -= n;
	}
	if (!len)
		return all;
	q->sources |= bit(x->reg, q->ep);
	if (sink_put(&q->sink, data, len, &x->err) < 0)
		return 0;
	show_progress(q);
	return all;
}

/*
 * All bytes are there. With a wrong digest, those who gave some are not asked again; when there are
 * others, or when some were from before, a new beginning may help.
 */
static void layer_complete(struct request *q)
{
	struct registry *r = q->x.reg;
	struct err err = { 0 };
	int e = sink_verify(&q->sink, &err);

	if (e == -EBADMSG) {
		bool old = q->sink.have != 0;

		for (size_t k = 0; k < r->n_endpoints && !old; k++)
			if (q->sources & (1u << k))
				r->endpoints[k].lied = true;
		finish(q, e, old || able(q), &err);
	} else if (e < 0 || !sink_full(&q->sink)) {
		finish(q, e, false, &err);
	} else {
		q->step = STEP_DRAIN;
	}
}

/* The answer has ended well: is it all of the layer? */
static void layer_answered(struct request *q)
{
	struct err err = { 0 };

	if (q->sink.done == q->sink.size) {
		layer_complete(q);
		return;
	}
	/* A server that says it was all does so again; an end within a range may be its own limit.
	 */
	err_set(&err, -EBADMSG, "blob %s is truncated: %llu of %llu bytes", q->sink.digest,
		(unsigned long long)q->sink.done, (unsigned long long)q->sink.size);
	try_failed(q, err.code, q->x.status == 206 && q->sink.done > q->round_start, 0, &err);
}

static void document_answered(struct request *q)
{
	char digest[DIGEST_LEN + 1];
	struct err err = { 0 };
	int e = 0;

	if (*q->digest) {
		e = digest_of(buf_data(&q->x.body), buf_len(&q->x.body), digest);
		if (e < 0)
			err_set(&err, e, "no memory");
		else if (!str_eq(digest, q->digest))
			e = err_set(&err, -EBADMSG, "%s %s has the wrong digest: it is %s",
				    q->op == REGISTRY_MANIFEST ? "manifest" : "configuration",
				    q->digest, digest);
	}
	if (e == -EBADMSG)
		try_failed(q, e, false, 0, &err);
	else
		finish(q, e, false, &err);
}

/* 401 with a challenge that can be met: again, once. */
static bool meet_challenge(struct request *q)
{
	struct registry *r = q->x.reg;
	const struct auth_challenge *c = &q->x.challenge;
	bool basic = c->scheme == AUTH_BASIC && q->ep->host.login && r->password;

	/* What another host asks for is not what the registry asks for. */
	if (q->x.status != 401 || q->x.left || q->asked_again || (q->ep->host.login && r->token) ||
	    (c->scheme != AUTH_BEARER && !basic) || (basic && q->authorized))
		return false;
	if (q->bearer && q->authorized)
		token_forget(r, q->bearer);
	q->ep->challenge = *c;
	q->asked_again = true;
	try_here(q);
	return true;
}

static const char *what_of(const struct request *q)
{
	return q->op == REGISTRY_MANIFEST ? "image" : q->op == REGISTRY_CALL ? "object" : "blob";
}

static bool changes(const struct request *q)
{
	return q->op == REGISTRY_CALL && !str_eq(q->method, "GET") && !str_eq(q->method, "HEAD");
}

static void no_answer(struct request *q, int code)
{
	struct err err = q->x.err;
	bool temporary = failure_unavailable(code);
	bool theirs = temporary || code == -EPROTO || code == -EFBIG || code == -EBADMSG;

	if (q->op == REGISTRY_LAYER && q->sink.done && code == -EREMOTEIO)
		err_set(&err, code, "%s (after %llu bytes)", err_text(&q->x.err),
			(unsigned long long)q->sink.done);
	q->ep->cold = temporary;
	/* A disk that is full, a pipe that nobody reads: no other host helps. A call that changes
	 * something may have done so: its caller must look before it tries again. */
	if (!theirs || (temporary && changes(q) && code != -ECONNREFUSED))
		finish(q, code, theirs, &err);
	else
		try_failed(q, code, temporary, 0, &err);
}

static void on_answer(struct exchange *x, int code)
{
	struct request *q = (struct request *)x;
	struct err err = { 0 };
	int e;

	q->paused = false;
	if (code < 0) {
		no_answer(q, code);
		return;
	}
	x->reg->answered = true;
	q->ep->cold = false;
	if (x->status == 200 || (q->op == REGISTRY_LAYER && x->status == 206) ||
	    (q->op == REGISTRY_CALL && x->status < 300)) {
		if (q->op == REGISTRY_LAYER)
			layer_answered(q);
		else
			document_answered(q);
		return;
	}
	if (meet_challenge(q))
		return;
	if (x->status == 416 && q->op == REGISTRY_LAYER && !q->ep->no_range) {
		q->ep->no_range = true;
		try_here(q);
		return;
	}
	e = exchange_status_error(x, q->ep->host.mirror ? q->ep->label : "the registry", what_of(q),
				  q->authorized, &err);
	if (changes(q) && x->status >= 500 && x->status != 503)
		finish(q, e, true, &err);
	else
		try_failed(q, e, retry_status(x->status), exchange_retry_after(x), &err);
}

void registry_token_ready(struct registry *r, uint64_t id, int code, bool temporary,
			  uint64_t after_s, const struct err *err)
{
	struct request *next;

	for (struct request *q = r->list; q; q = next) {
		struct err copy = *err;

		next = q->next;
		if (q->step != STEP_PAUSE || q->waits != id)
			continue;
		q->waits = 0;
		if (code < 0)
			try_failed(q, code, temporary, after_s, &copy);
		else
			try_here(q);
	}
}

/* ---- a new request ---- */

static int set_digest(struct request *q, const struct registry_request *in)
{
	const char *d = in->op == REGISTRY_CALL	      ? NULL
			: in->op == REGISTRY_MANIFEST ? in->reference
						      : in->digest;

	if (digest_valid(d))
		memcpy(q->digest, d, DIGEST_LEN + 1);
	return in->op == REGISTRY_BLOB || in->op == REGISTRY_LAYER ? digest_valid(d) : true;
}

static int set_strings(struct request *q, const struct registry_request *in)
{
	bool ok = true;

	q->repository = registry_copy(in->repository, &ok);
	q->method = registry_copy(in->method, &ok);
	q->content_type = registry_copy(in->content_type, &ok);
	q->content_range = registry_copy(in->content_range, &ok);
	q->path = in->op == REGISTRY_CALL
			  ? strdup(in->path)
			  : str_fmt("%s/%s/%s", in->repository,
				    in->op == REGISTRY_MANIFEST ? "manifests" : "blobs",
				    in->op == REGISTRY_MANIFEST ? in->reference : in->digest);
	q->scopes = in->repository ? str_fmt("repository:%s:%s%s%s", in->repository,
					     in->op == REGISTRY_CALL ? "pull,push" : "pull",
					     in->scope ? " " : "", in->scope ? in->scope : "")
				   : strdup("");
	return ok && q->path && q->scopes ? 0 : -ENOMEM;
}

static int request_new(struct registry *r, const struct registry_request *in, struct request **ret,
		       struct err *err)
{
	struct request *q = calloc(1, sizeof(*q));
	int e;

	if (!q || exchange_init(&q->x, r, in->op == REGISTRY_LAYER ? REGISTRY_MAX_TOKEN : in->max,
				on_answer) < 0) {
		free(q);
		return err_set(err, -ENOMEM, "no memory");
	}
	q->op = in->op;
	q->id = in->id;
	q->done = in->done ? in->done : r->done;
	q->arg = in->done ? in->arg : r->arg;
	q->sink.file_fd = q->sink.pipe_fd = -1;
	q->x.document = in->op == REGISTRY_MANIFEST || in->op == REGISTRY_BLOB;
	if (in->op == REGISTRY_CALL) {
		q->x.body_fd = in->body_fd;
		q->x.body_at = in->body_at;
		q->x.body_len = in->body_len;
	}
	e = set_digest(q, in) ? set_strings(q, in) : -EPROTO;
	q->x.method = q->method;
	if (e < 0) {
		request_free(q);
		return err_set(err, e, "cannot set up the request");
	}
	*ret = q;
	return 0;
}

int registry_start(struct registry *r, const struct registry_request *in, struct err *err)
{
	struct request *q = NULL;
	int e, file_fd = in->file_fd, pipe_fd = in->pipe_fd;

	e = r->n >= REGISTRY_MAX_REQUESTS ? err_set(err, -EBUSY, "too many requests at once")
					  : request_new(r, in, &q, err);
	if (in->op == REGISTRY_LAYER) {
		if (e < 0) {
			fd_close(&file_fd);
			fd_close(&pipe_fd);
			return e;
		}
		q->x.data = on_layer;
		e = sink_init(&q->sink, in->digest, in->size, file_fd, pipe_fd, in->have, err);
	}
	if (e < 0) {
		if (q)
			request_free(q);
		return e;
	}
	/* It begins in registry_poll: `done` is never called from here. */
	q->step = q->op == REGISTRY_LAYER ? STEP_REPLAY : STEP_PAUSE;
	q->next = r->list;
	r->list = q;
	r->n++;
	return 0;
}

/* ---- work ---- */

static void replay(struct request *q)
{
	struct err err = { 0 };
	int e = sink_replays(&q->sink) ? sink_replay(&q->sink, &err) : 0;

	show_progress(q);
	if (e < 0) {
		finish(q, e, false, &err);
	} else if (e == 0 && !sink_replays(&q->sink)) {
		q->round_start = q->sink.done;
		if (q->sink.done == q->sink.size)
			layer_complete(q);
		else
			try_next(q);
	}
}

/* A pipe that was full: the rest goes first, then the transfer may go on. */
static void unblock(struct request *q)
{
	struct err err = { 0 };
	int e = sink_flush(&q->sink, &err);

	if (e < 0 || (e == 0 && q->step == STEP_DRAIN)) {
		finish(q, e, false, &err);
	} else if (e == 0 && q->paused) {
		q->paused = false;
		curl_easy_pause(q->x.easy, CURLPAUSE_CONT);
	}
}

void request_work(struct request *q, uint64_t now)
{
	if (q->step == STEP_REPLAY)
		replay(q);
	else if (q->step == STEP_PAUSE && !q->waits && now >= q->retry_ns)
		try_next(q);
	else if (q->op == REGISTRY_LAYER && (q->paused || sink_full(&q->sink)))
		unblock(q);
	else if (q->op == REGISTRY_CALL && q->x.body_sent)
		show_progress(q);
}
