/*
 * What all kinds of requests have in common: which host, which token, what comes after a failure.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/util.h"
#include "image/failure.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

#define PROGRESS_EVERY_NS (100 * NS_PER_MS)
#define MAX_SCOPES_TEXT 4096

/* ---- the end ---- */

void request_free(struct request *q)
{
	exchange_fini(&q->x);
	if (q->ops->fini)
		q->ops->fini(q);
	free(q->path);
	free(q->scopes);
	free(q->bearer);
	free(q);
}

void request_end(struct request *q, int code, bool again, const struct err *err)
{
	struct registry *reg = q->x.reg;
	struct registry_result res = { .status = q->x.status,
				       .location = q->x.location,
				       .range = q->x.range,
				       .digest = q->x.digest,
				       .again = again };
	struct request **at = &reg->list;

	/* `done` once for each: a request that has ended is not in the list any more. */
	for (; *at != q; at = &(*at)->next)
		check(*at);
	*at = q->next;
	reg->n--;
	exchange_stop(&q->x);
	res.len = buf_len(&q->x.body);
	res.data = res.len ? (const void *)buf_data(&q->x.body) : "";
	if (q->ops->result)
		q->ops->result(q, &res);
	q->done(q->arg, q->id, code, &res, err);
	request_free(q);
}

/* All hosts have had their chance. The server's own reason counts; that of a mirror goes along. */
static void give_up(struct request *q, int code, struct err *err)
{
	struct err whole = { 0 };

	if (q->mirror_err.code && !q->ep->host.mirror) {
		err_set(&whole, code, "%.300s (before that, %.180s)", err_text(err),
			err_text(&q->mirror_err));
		request_end(q, code, false, &whole);
	} else {
		request_end(q, code, false, err);
	}
}

/* ---- where and when next ---- */

uint32_t endpoint_bit(const struct registry *reg, const struct endpoint *ep)
{
	return 1u << (ep - reg->endpoints);
}

uint32_t request_hosts(const struct request *q)
{
	struct registry *reg = q->x.reg;
	uint32_t bits = 0;

	for (size_t k = 0; k < reg->n_endpoints; k++) {
		struct endpoint *ep = &reg->endpoints[k];

		if ((ep->host.capabilities & q->capability) && !ep->bad_digest)
			bits |= endpoint_bit(reg, ep);
		if (bits && q->ops->one_host)
			break;
	}
	return bits;
}

/* The first host that was not tried in this round; those that did not answer the last time come
 * after the others. NULL: the round is over. */
static struct endpoint *choose(const struct request *q)
{
	struct registry *reg = q->x.reg;
	uint32_t left = request_hosts(q) & ~q->tried & ~q->refused;
	struct endpoint *unreachable = NULL;

	for (size_t k = 0; k < reg->n_endpoints; k++) {
		struct endpoint *ep = &reg->endpoints[k];

		if (!(left & endpoint_bit(reg, ep)))
			continue;
		if (!ep->unreachable)
			return ep;
		if (!unreachable)
			unreachable = ep;
	}
	return unreachable;
}

static uint32_t random_u32(void)
{
	uint32_t v;

	return getrandom(&v, sizeof(v), GRND_NONBLOCK) == sizeof(v) ? v : 0;
}

/* All hosts have failed in this round: a pause and another one, or the end. */
static void round_over(struct request *q, int code, struct err *err)
{
	struct registry *reg = q->x.reg;
	unsigned max = reg->answered ? RETRY_ROUNDS : RETRY_ROUNDS_FIRST;
	bool more = !q->ops->another_round || q->ops->another_round(q);

	if (++q->rounds >= max || !more || !(request_hosts(q) & ~q->refused)) {
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
	q->token_id = 0;
	q->retry_ns = now_mono_ns() + NS_PER_MS * retry_delay_ms(reg->retry_base_ms, q->rounds,
								 random_u32(), q->after_s);
	q->after_s = 0;
}

void request_try_failed(struct request *q, int code, bool temporary, uint64_t after_s,
			struct err *err)
{
	struct registry *reg = q->x.reg;

	q->tried |= endpoint_bit(reg, q->ep);
	if (!temporary)
		q->refused |= endpoint_bit(reg, q->ep);
	q->after_s = MAX_OF(q->after_s, after_s);
	if (q->ep->host.mirror && !q->mirror_err.code)
		q->mirror_err = *err;
	if (choose(q))
		request_try_next(q);
	else if (!temporary && (!q->ep->host.mirror || !(request_hosts(q) & ~q->refused)))
		give_up(q, code, err); /* the server's refusal is final */
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

/* The scopes to ask for: ours, and what the challenge names besides (a mirror has other names). */
static void all_scopes(const struct request *q, char out[MAX_SCOPES_TEXT])
{
	const char *theirs = q->ep->challenge.scope;
	int n = snprintf(out, MAX_SCOPES_TEXT, "%s", q->scopes);

	/* What was learned by one repository's request says nothing about another one's. */
	if (*theirs && q->asked_again && !strstr(out, theirs) && n >= 0 && n < MAX_SCOPES_TEXT)
		snprintf(out + n, (size_t)(MAX_SCOPES_TEXT - n), " %s", theirs);
}

/* 1: *a is filled; 0: it has to wait for the token token_id; < 0. */
static int authorize(struct request *q, struct exchange_auth *a, struct err *err)
{
	struct registry *reg = q->x.reg;
	char scopes[MAX_SCOPES_TEXT];
	const char *value = NULL;
	int r;

	q->authorized = true;
	if (q->ep->host.login && reg->token) {
		a->bearer = reg->token;
	} else if (q->ep->challenge.scheme == AUTH_BEARER) {
		all_scopes(q, scopes);
		r = token_get(reg, q->ep, scopes, &value, &q->token_id, err);
		if (r <= 0)
			return r;
		free(q->bearer);
		q->bearer = strdup(value);
		if (!q->bearer)
			return err_nomem(err);
		a->bearer = q->bearer;
	} else if (q->ep->challenge.scheme == AUTH_BASIC && q->ep->host.login && reg->password) {
		a->user = reg->user;
		a->password = reg->password;
	} else {
		q->authorized = false;
	}
	return 1;
}

static int start_exchange(struct request *q, const struct exchange_auth *a, struct err *err)
{
	cleanup_free char *url = make_url(q);

	exchange_no_headers(&q->x);
	if (!url || (q->ops->headers && q->ops->headers(q) < 0))
		return err_nomem(err);
	return exchange_start(&q->x, q->ep, url, a, err);
}

void request_again(struct request *q)
{
	struct exchange_auth a = { 0 };
	struct err err = { 0 };
	int r = authorize(q, &a, &err);

	if (r == 0) {
		q->step = STEP_PAUSE;
		return;
	}
	if (r > 0)
		r = start_exchange(q, &a, &err);
	if (r < 0)
		request_try_failed(q, r, false, 0, &err);
	else
		q->step = STEP_EXCHANGE;
}

void request_try_next(struct request *q)
{
	struct endpoint *ep = choose(q);
	struct err err = { 0 };

	if (!ep) {
		err_set(&err, -ENOTSUP, "no host in hosts.toml is allowed to %s",
			q->capability == HOST_PUSH	? "push"
			: q->capability == HOST_RESOLVE ? "resolve tags"
							: "pull");
		request_end(q, err.code, false, &err);
		return;
	}
	q->ep = ep;
	q->asked_again = false;
	request_again(q);
}

/* ---- answers ---- */

void request_progress(struct request *q, uint64_t bytes)
{
	struct registry *reg = q->x.reg;
	uint64_t now = now_mono_ns();

	if (now - q->last_progress_ns < PROGRESS_EVERY_NS)
		return;
	q->last_progress_ns = now;
	reg->progress(reg->arg, q->id, bytes);
}

/* 401 with a challenge that can be met: once more. */
static bool meet_challenge(struct request *q)
{
	struct registry *reg = q->x.reg;
	const struct auth_challenge *c = &q->x.challenge;
	bool basic = c->scheme == AUTH_BASIC && q->ep->host.login && reg->password;

	/* What another host asks for is not what the registry asks for. */
	if (q->x.status != 401 || q->x.cross_origin || q->asked_again ||
	    (q->ep->host.login && reg->token) || (c->scheme != AUTH_BEARER && !basic) ||
	    (basic && q->authorized))
		return false;
	if (q->bearer && q->authorized)
		token_forget(reg, q->bearer);
	q->ep->challenge = *c;
	q->asked_again = true;
	request_again(q);
	return true;
}

static void no_answer(struct request *q, int code)
{
	struct err err = q->x.err;
	bool temporary = failure_unavailable(code);
	bool theirs = temporary || code == -EPROTO || code == -EFBIG || code == -EBADMSG;
	uint64_t received = q->ops->received ? q->ops->received(q) : 0;

	if (received && code == -EREMOTEIO)
		err_set(&err, code, "%s (after %llu bytes)", err_text(&q->x.err),
			(unsigned long long)received);
	q->ep->unreachable = temporary;
	/*
	 * A disk that is full or a pipe without a reader is not the host's fault. What changes
	 * something at the registry may have arrived: its caller must look before it tries again.
	 */
	if (!theirs || (temporary && q->changes && code != -ECONNREFUSED))
		request_end(q, code, theirs, &err);
	else
		request_try_failed(q, code, temporary, 0, &err);
}

static void request_on_answer(struct exchange *x, int code)
{
	struct request *q = (struct request *)x;
	struct err err = { 0 };
	int r;

	if (code < 0) {
		no_answer(q, code);
		return;
	}
	x->reg->answered = true;
	q->ep->unreachable = false;
	if (q->ops->is_answer(x->status)) {
		q->ops->answered(q);
		return;
	}
	if (meet_challenge(q) || (q->ops->refused && q->ops->refused(q)))
		return;
	r = exchange_status_error(x, q->ep->host.mirror ? q->ep->label : "the registry",
				  q->ops->object, q->authorized, &err);
	if (q->changes && x->status >= 500 && x->status != 503)
		request_end(q, r, true, &err);
	else
		request_try_failed(q, r, retry_status(x->status), exchange_retry_after(x), &err);
}

void request_on_token(struct registry *reg, uint64_t id, int code, bool temporary, uint64_t after_s,
		      const struct err *err)
{
	struct request *next;

	for (struct request *q = reg->list; q; q = next) {
		struct err copy = *err;

		next = q->next;
		if (q->step != STEP_PAUSE || q->token_id != id)
			continue;
		q->token_id = 0;
		if (code < 0)
			request_try_failed(q, code, temporary, after_s, &copy);
		else
			request_again(q);
	}
}

/* ---- a new request ---- */

int request_init(struct request *q, struct registry *reg, const struct request_ops *ops,
		 uint32_t id, uint64_t max_body)
{
	if (exchange_init(&q->x, reg, max_body, request_on_answer) < 0)
		return -ENOMEM;
	q->ops = ops;
	q->id = id;
	q->step = STEP_PAUSE;
	q->done = reg->done;
	q->arg = reg->arg;
	return 0;
}

int request_start(struct request *q, struct err *err)
{
	struct registry *reg = q->x.reg;
	int r = 0;

	check(q->capability && q->done);
	if (!q->path || !q->scopes)
		r = err_nomem(err);
	else if (reg->n >= REGISTRY_MAX_REQUESTS)
		r = err_set(err, -EBUSY, "more than %d requests at once", REGISTRY_MAX_REQUESTS);
	if (r < 0) {
		request_free(q);
		return r;
	}
	q->next = reg->list;
	reg->list = q;
	reg->n++;
	return 0;
}

void request_work(struct request *q, uint64_t now)
{
	if (q->step == STEP_PAUSE && !q->token_id && now >= q->retry_ns)
		request_try_next(q);
	else if (q->ops->work)
		q->ops->work(q);
}
