#include "cri/images/husk_push.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/images/images.h"

/* ---- push ---- */

struct push {
	struct rpc_call *call;
	struct image_push *handle;
	char *ref;
	struct images_progress last;
};

static void push_free(struct push *p)
{
	images_progress_fini(&p->last);
	free(p->ref);
	free(p);
}

static void husk_push_on_progress(void *arg, const struct image_blob_progress *blobs, size_t n)
{
	Husk__PushProgress m = HUSK__PUSH_PROGRESS__INIT;
	cleanup_free Husk__BlobProgress **list = NULL;
	struct push *p = arg;

	images_progress_blobs(&p->last, blobs, n);
	m.n_blobs = images_blob_list(&p->last, &list);
	m.blobs = list;
	/* One that finds the stream busy is dropped: the next one says more. */
	(void)!rpc_send(p->call, &m.base);
}

static void reply_pushed(struct push *p, const struct image_push_result *result)
{
	Husk__PushProgress m = HUSK__PUSH_PROGRESS__INIT;
	cleanup_free Husk__BlobProgress **list = NULL;

	m.n_blobs = images_blob_list(&p->last, &list);
	m.blobs = list;
	m.digest = (char *)result->digest;
	m.total_ns = result->total_ns;
	rpc_reply(p->call, &m.base);
}

static void husk_push_on_done(void *arg, int code, const struct image_push_result *result,
			      const struct err *err)
{
	struct push *p = arg;

	if (code < 0) {
		log_limited(LOG_ERROR, "PushImage failed", "image", p->ref, "err", err_text(err));
		images_reply_err(p->call, code, err);
	} else {
		log_info("image is pushed", "image", p->ref, "digest", result->digest);
		reply_pushed(p, result);
	}
	push_free(p);
}

static void husk_push_on_cancel(struct rpc_call *call, void *arg)
{
	struct push *p = arg;

	log_info("PushImage was cancelled", "image", p->ref);
	image_push_cancel(p->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	push_free(p);
}

void husk_push_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__PushImageRequest *req = (const void *)msg;
	struct image_auth auth = images_auth(req->auth);
	struct huskd *d = arg;
	struct push *p = calloc(1, sizeof(*p));
	struct err err = { 0 };
	int r = p && (p->ref = strdup(req->image)) ? 0 : -ENOMEM;

	if (r == 0) {
		p->call = call;
		r = image_push(d->images, p->ref, req->auth ? &auth : NULL, husk_push_on_progress,
			       husk_push_on_done, p, &p->handle, &err);
	}
	if (r < 0) {
		images_reply_err(call, r, &err);
		if (p)
			push_free(p);
		return;
	}
	log_info("pushing an image", "image", p->ref);
	rpc_on_cancel(call, husk_push_on_cancel, p);
}

/* ---- login ---- */

struct login {
	struct rpc_call *call;
	struct image_login *handle;
};

static void husk_push_on_login(void *arg, int code, const struct err *err)
{
	Husk__CheckLoginResponse resp = HUSK__CHECK_LOGIN_RESPONSE__INIT;
	struct login *l = arg;

	if (code < 0)
		images_reply_err(l->call, code, err);
	else
		rpc_reply(l->call, &resp.base);
	free(l);
}

static void husk_push_on_login_cancel(struct rpc_call *call, void *arg)
{
	struct login *l = arg;

	image_login_cancel(l->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	free(l);
}

void husk_push_handle_login(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__CheckLoginRequest *req = (const void *)msg;
	struct image_auth auth = images_auth(req->auth);
	struct huskd *d = arg;
	struct login *l = calloc(1, sizeof(*l));
	struct err err = { 0 };
	int r = l ? image_login(d->images, req->server, &auth, husk_push_on_login, l, &l->handle,
				&err)
		  : -ENOMEM;

	if (r < 0) {
		images_reply_err(call, r, &err);
		free(l);
		return;
	}
	l->call = call;
	rpc_on_cancel(call, husk_push_on_login_cancel, l);
}
