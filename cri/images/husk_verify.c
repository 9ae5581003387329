#include "cri/images/husk_verify.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

/* A message that waits for its turn. Owned strings. */
struct report {
	struct report *next;
	char *object, *problem; /* problem NULL: all is well */
	char **images;
	uint64_t done, total;
};

struct verify {
	struct rpc_call *call;
	struct image_verify *handle; /* NULL: it has ended */
	struct report *first, **last;
	int code; /* of the end */
	struct err err;
	size_t problems;
};

static void report_free(struct report *r)
{
	free(r->object);
	free(r->problem);
	strv_free(r->images);
	free(r);
}

static void verify_free(struct verify *v)
{
	while (v->first) {
		struct report *r = v->first;

		v->first = r->next;
		report_free(r);
	}
	free(v);
}

static char **copy_all(char *const *v)
{
	size_t n = strv_len(v);
	char **copy = calloc(n + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < n; i++)
		copy[i] = strdup(v[i]);
	return copy;
}

static void husk_verify_on_sent(struct rpc_call *call, void *arg);

static int send_one(struct verify *v, const struct report *r)
{
	Husk__VerifyProgress m = HUSK__VERIFY_PROGRESS__INIT;
	int sent;

	m.object = r->object;
	m.done = r->done;
	m.total = r->total;
	m.problem = r->problem ? r->problem : (char *)"";
	m.images = r->images;
	m.n_images = r->images ? strv_len(r->images) : 0;
	sent = rpc_send(v->call, &m.base);
	if (sent == 0)
		rpc_on_sent(v->call, husk_verify_on_sent, v);
	return sent;
}

/* Sends what waits, and the end after it. */
static void husk_verify_on_sent(struct rpc_call *call, void *arg)
{
	struct verify *v = arg;

	while (v->first) {
		struct report *r = v->first;

		if (send_one(v, r) < 0)
			return; /* one is on its way already, or the client has gone */
		v->first = r->next;
		if (!v->first)
			v->last = &v->first;
		report_free(r);
		return;
	}
	if (v->handle)
		return;
	log_info("images are verified", "err", v->code < 0 ? err_text(&v->err) : "");
	if (v->code < 0)
		rpc_reply_err(call, v->code, &v->err);
	else
		rpc_reply(call, NULL);
	verify_free(v);
}

static void husk_verify_on_object(void *arg, const struct image_verified *o)
{
	struct verify *v = arg;
	struct report *r;

	/* The next one says more. */
	if (!o->problem && v->first)
		return;
	r = calloc(1, sizeof(*r));
	if (!r)
		return;
	r->object = str_fmt("%s %s", o->kind, o->digest);
	r->problem = o->problem ? strdup(o->problem) : NULL;
	r->images = o->problem && o->images ? copy_all(o->images) : NULL;
	r->done = o->done;
	r->total = o->total;
	if (!r->object) {
		report_free(r);
		return;
	}
	*v->last = r;
	v->last = &r->next;
	if (v->first == r)
		husk_verify_on_sent(v->call, v);
}

static void husk_verify_on_verified(void *arg, int code, size_t problems, const struct err *err)
{
	struct verify *v = arg;

	v->handle = NULL;
	v->code = code;
	v->problems = problems;
	if (code < 0)
		v->err = *err;
	/* A message on its way calls husk_verify_on_sent when it has gone. */
	if (!rpc_sending(v->call))
		husk_verify_on_sent(v->call, v);
}

static void husk_verify_on_cancel(struct rpc_call *call, void *arg)
{
	struct verify *v = arg;

	if (v->handle)
		image_verify_cancel(v->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	verify_free(v);
}

void husk_verify_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__VerifyImagesRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct verify *v = calloc(1, sizeof(*v));
	cleanup_free char **refs = calloc(req->n_images + 1, sizeof(*refs));
	struct err err = { 0 };
	int r = v && refs ? 0 : -ENOMEM;

	if (r == 0) {
		for (size_t i = 0; i < req->n_images; i++)
			refs[i] = req->images[i];
		v->call = call;
		v->last = &v->first;
		r = image_verify(d->images, refs, husk_verify_on_object, husk_verify_on_verified, v,
				 &v->handle, &err);
	}
	if (r < 0) {
		free(v);
		rpc_reply_err(call, r, &err);
		return;
	}
	rpc_on_cancel(call, husk_verify_on_cancel, v);
}
