/* Calls: any method on any path of the registry, for pushing. What they mean is their caller's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/registry/internal.h"

struct call {
	struct request q;
	char *method, *content_type, *content_range;
};

static int call_headers(struct request *q)
{
	const struct call *c = (const struct call *)q;
	int r = 0;

	if (c->content_type)
		r = exchange_header(&q->x, "Content-Type: %s", c->content_type);
	if (r == 0 && c->content_range)
		r = exchange_header(&q->x, "Content-Range: %s", c->content_range);
	return r;
}

static bool call_is_answer(long status)
{
	return status < 300;
}

static void call_answered(struct request *q)
{
	struct err err = { 0 };

	request_end(q, 0, false, &err);
}

static void call_work(struct request *q)
{
	if (q->x.body_sent)
		request_progress(q, q->x.body_at + q->x.body_sent);
}

static void call_fini(struct request *q)
{
	struct call *c = (struct call *)q;

	free(c->method);
	free(c->content_type);
	free(c->content_range);
}

static const struct request_ops call_ops = {
	.object = "object",
	.one_host = true,
	.headers = call_headers,
	.is_answer = call_is_answer,
	.answered = call_answered,
	.work = call_work,
	.fini = call_fini,
};

static int copy(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return s && !*ret ? -ENOMEM : 0;
}

int registry_call(struct registry *reg, const struct registry_call *in, struct err *err)
{
	struct call *c = calloc(1, sizeof(*c));
	struct request *q = &c->q;

	if (!c || request_init(q, reg, &call_ops, in->id, in->max) < 0) {
		free(c);
		return err_nomem(err);
	}
	q->capability = HOST_PUSH;
	q->done = in->done;
	q->arg = in->arg;
	q->changes = !str_eq(in->method, "GET") && !str_eq(in->method, "HEAD");
	if (copy(in->method, &c->method) < 0 || copy(in->content_type, &c->content_type) < 0 ||
	    copy(in->content_range, &c->content_range) < 0) {
		request_free(q);
		return err_nomem(err);
	}
	q->x.method = c->method;
	q->x.body_fd = in->body_fd;
	q->x.body_at = in->body_at;
	q->x.body_len = in->body_len;
	q->path = strdup(in->path);
	q->scopes = in->repository ? str_fmt("repository:%s:pull,push%s%s", in->repository,
					     in->scope ? " " : "", in->scope ? in->scope : "")
				   : strdup("");
	return request_start(q, err);
}
