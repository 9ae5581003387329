/*
 * Layers: a blob into a file and a pipe, hashed on the way (sink.h). What the file has already is
 * read again first; what a broken connection leaves out is asked for by Range, where the host can
 * do it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

struct layer {
	struct request q;
	struct sink sink;
	uint32_t sources;     /* hosts that have given bytes of it */
	unsigned resumes;     /* rounds after the first, also those with progress */
	uint64_t round_start; /* sink.done then */
	/* this try */
	bool began;    /* its first bytes have come and are the ones that were asked for */
	uint64_t skip; /* bytes to leave out of an answer that begins at 0 in spite of a Range */
};

static struct layer *layer_of(struct request *q)
{
	return (struct layer *)q;
}

/* ---- one answer ---- */

static int layer_headers(struct request *q)
{
	struct layer *l = layer_of(q);

	l->skip = 0;
	l->began = false;
	if (!l->sink.done || q->ep->no_range)
		return 0;
	return exchange_header(&q->x, "Range: bytes=%llu-", (unsigned long long)l->sink.done);
}

static bool layer_is_answer(long status)
{
	return status == 200 || status == 206;
}

/* "bytes FIRST-LAST/TOTAL": is FIRST where we are? */
static bool range_fits(const struct layer *l)
{
	unsigned long long first, last, total;
	int n = sscanf(l->q.x.content_range, "bytes %20llu-%20llu/%20llu", &first, &last, &total);

	return n >= 2 && first == l->sink.done && (n == 2 || total == l->sink.size);
}

/* The first bytes of an answer: is it what was asked for? */
static int begin(struct layer *l)
{
	struct exchange *x = &l->q.x;

	l->began = true;
	if (x->status == 200)
		l->skip = l->sink.done;
	else if (!range_fits(l))
		return err_set(&x->err, -EREMOTEIO, "%s answers with another range than asked for",
			       l->q.ep->label);
	return 0;
}

static size_t layer_on_data(struct exchange *x, const char *data, size_t len)
{
	struct layer *l = (struct layer *)x;
	size_t all = len;

	if (sink_full(&l->sink))
		return CURL_WRITEFUNC_PAUSE;
	if (!l->began && begin(l) < 0) {
		l->q.ep->no_range = true;
		return 0;
	}
	if (l->skip) {
		size_t n = MIN_OF(l->skip, (uint64_t)len);

		l->skip -= n;
		data += n;
		len -= n;
	}
	if (!len)
		return all;
	l->sources |= endpoint_bit(x->reg, l->q.ep);
	if (sink_put(&l->sink, data, len, &x->err) < 0)
		return 0;
	x->reg->pace_bytes += len;
	request_progress(&l->q, l->sink.done);
	return all;
}

/*
 * All bytes are there. If their digest is wrong, none of the hosts that gave some is asked again. A
 * new request may find the right ones, from other hosts, or when some of the bytes were in the file
 * before.
 */
static void complete(struct layer *l)
{
	struct registry *reg = l->q.x.reg;
	struct err err = { 0 };
	int r = sink_verify(&l->sink, &err);

	if (r == -EBADMSG) {
		bool from_before = l->sink.have != 0;

		for (size_t k = 0; k < reg->n_endpoints && !from_before; k++)
			if (l->sources & (1u << k))
				reg->endpoints[k].bad_digest = true;
		request_end(&l->q, r, from_before || request_hosts(&l->q), &err);
	} else if (r < 0 || !sink_full(&l->sink)) {
		request_end(&l->q, r, false, &err);
	} else {
		l->q.step = STEP_DRAIN;
	}
}

static void layer_answered(struct request *q)
{
	struct layer *l = layer_of(q);
	struct err err = { 0 };
	bool temporary;

	if (l->sink.done == l->sink.size) {
		complete(l);
		return;
	}
	err_set(&err, -EBADMSG, "blob %s is truncated: %llu of %llu bytes", l->sink.digest,
		(unsigned long long)l->sink.done, (unsigned long long)l->sink.size);
	/* A host for which 200 and fewer bytes are the whole blob has no more of it. A range may
	 * have ended at a limit of its own. */
	temporary = q->x.status == 206 && l->sink.done > l->round_start;
	request_try_failed(q, err.code, temporary, 0, &err);
}

/* 416: without a Range. */
static bool layer_refused(struct request *q)
{
	if (q->x.status != 416 || q->ep->no_range)
		return false;
	q->ep->no_range = true;
	request_again(q);
	return true;
}

/* A round that made progress was not in vain: the count of failed rounds begins again. */
static bool layer_another_round(struct request *q)
{
	struct layer *l = layer_of(q);

	if (l->sink.done >= l->round_start + RETRY_PROGRESS) {
		q->rounds = 0;
		l->round_start = l->sink.done;
	}
	return ++l->resumes <= REGISTRY_MAX_RESUMES;
}

static uint64_t layer_received(const struct request *q)
{
	return ((const struct layer *)q)->sink.done;
}

/* ---- the pace ---- */

static const struct request_ops layer_ops;

/* Is it the registry's turn? Not while the unpacker is behind, or the token service is asked. */
static bool waits_for_bytes(const struct request *q)
{
	return q->ops == &layer_ops && q->step == STEP_EXCHANGE && q->x.running && !q->x.paused;
}

static void too_slow(struct request *q)
{
	struct err err = { 0 };

	exchange_stop(&q->x);
	err_set(&err, -ETIMEDOUT, "%s is too slow: less than %zu KiB a second for minutes",
		q->ep->label, REGISTRY_PACE_BYTES / KIB);
	/* It would be as slow again: others are asked, if there are any. */
	request_try_failed(q, err.code, false, 0, &err);
}

void layers_check_pace(struct registry *reg, uint64_t now)
{
	uint64_t window_s = (uint64_t)reg->stall_s * REGISTRY_PACE_STALLS;
	struct request *next;
	bool slow;

	if (reg->pace_runs)
		reg->pace_ns += now - reg->pace_last_ns;
	reg->pace_last_ns = now;
	slow = reg->pace_ns >= window_s * NS_PER_S &&
	       reg->pace_bytes < window_s * REGISTRY_PACE_BYTES;
	if (reg->pace_ns >= window_s * NS_PER_S)
		reg->pace_ns = reg->pace_bytes = 0;
	reg->pace_runs = false;
	for (struct request *q = reg->list; q; q = next) {
		next = q->next;
		if (waits_for_bytes(q) && slow)
			too_slow(q);
		else if (waits_for_bytes(q))
			reg->pace_runs = true;
	}
}

/* ---- what it does without the network ---- */

static void replay(struct layer *l)
{
	struct err err = { 0 };
	int r = sink_replays(&l->sink) ? sink_replay(&l->sink, &err) : 0;

	request_progress(&l->q, l->sink.done);
	if (r < 0) {
		request_end(&l->q, r, false, &err);
	} else if (r == 0 && !sink_replays(&l->sink)) {
		l->round_start = l->sink.done;
		if (l->sink.done == l->sink.size)
			complete(l);
		else
			request_try_next(&l->q);
	}
}

/* A pipe that was full: what was held back goes first, then the transfer continues. */
static void unblock(struct layer *l)
{
	struct err err = { 0 };
	int r = sink_flush(&l->sink, &err);

	if (r < 0 || (r == 0 && l->q.step == STEP_DRAIN))
		request_end(&l->q, r, false, &err);
	else if (r == 0)
		exchange_resume(&l->q.x);
}

static void layer_work(struct request *q)
{
	struct layer *l = layer_of(q);

	if (q->step == STEP_REPLAY)
		replay(l);
	else if (q->x.paused || sink_full(&l->sink))
		unblock(l);
}

static bool layer_ready(const struct request *q)
{
	return q->step == STEP_REPLAY && !sink_full(&((const struct layer *)q)->sink);
}

static int layer_blocked_fd(const struct request *q)
{
	const struct layer *l = (const struct layer *)q;

	return sink_full(&l->sink) ? l->sink.pipe_fd : -1;
}

/* ---- beginning and end ---- */

static void layer_result(struct request *q, struct registry_result *res)
{
	struct layer *l = layer_of(q);

	res->data = NULL;
	res->len = 0;
	res->fetched = l->sink.done;
	sink_fini(&l->sink);
}

static void layer_fini(struct request *q)
{
	sink_fini(&layer_of(q)->sink);
}

static const struct request_ops layer_ops = {
	.object = "blob",
	.headers = layer_headers,
	.is_answer = layer_is_answer,
	.answered = layer_answered,
	.refused = layer_refused,
	.another_round = layer_another_round,
	.received = layer_received,
	.work = layer_work,
	.ready = layer_ready,
	.blocked_fd = layer_blocked_fd,
	.result = layer_result,
	.fini = layer_fini,
};

int registry_layer(struct registry *reg, const struct registry_layer *in, struct err *err)
{
	struct layer *l = calloc(1, sizeof(*l));
	cleanup_fd int file_fd = in->file_fd, pipe_fd = in->pipe_fd;
	int r;

	if (!l || request_init(&l->q, reg, &layer_ops, in->id, REGISTRY_MAX_TOKEN) < 0) {
		free(l);
		return err_nomem(err);
	}
	r = sink_init(&l->sink, in->digest, in->size, take_fd(&file_fd), take_fd(&pipe_fd),
		      in->have, err);
	if (r < 0) {
		request_free(&l->q);
		return r;
	}
	l->q.x.data = layer_on_data;
	l->q.step = STEP_REPLAY;
	l->q.capability = HOST_PULL;
	l->q.path = str_fmt("%s/blobs/%s", in->repository, in->digest);
	l->q.scopes = str_fmt("repository:%s:pull", in->repository);
	return request_start(&l->q, err);
}
