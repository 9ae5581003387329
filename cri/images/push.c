/* husk.v1 PushImage and CheckLogin. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"
#include "cri/images/husk_images.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

static struct image_auth auth_of(const Cri__AuthConfig *a)
{
	return a ? (struct image_auth){ a->username,	   a->password,	      a->auth,
					a->server_address, a->identity_token, a->registry_token }
		 : (struct image_auth){ 0 };
}

/* A registry's words may be anything. */
static void reply_err(struct rpc_call *call, int code, const struct err *err)
{
	struct err e = *err;

	utf8_repair(e.msg);
	rpc_reply_err(call, code, &e);
}

/* ---- push ---- */

struct push {
	struct rpc_call *call;
	struct image_push *handle;
	char *ref;
	/* The last progress, for the message with the result. */
	struct image_blob_progress *blobs;
	size_t n;
};

static void push_free(struct push *p)
{
	for (size_t i = 0; i < p->n; i++)
		free((char *)p->blobs[i].digest);
	free(p->blobs);
	free(p->ref);
	free(p);
}

static void send_progress(struct push *p, const struct image_push_result *r)
{
	Husk__PushProgress m = HUSK__PUSH_PROGRESS__INIT;
	cleanup_free Husk__BlobProgress *items = calloc(p->n + 1, sizeof(*items));
	cleanup_free Husk__BlobProgress **list = calloc(p->n + 1, sizeof(*list));

	for (size_t i = 0; items && list && i < p->n; i++) {
		husk__blob_progress__init(&items[i]);
		items[i].digest = (char *)p->blobs[i].digest;
		items[i].sent = p->blobs[i].sent;
		items[i].size = p->blobs[i].size;
		items[i].state = (Husk__BlobProgress__State)p->blobs[i].state;
		list[i] = &items[i];
		m.n_blobs++;
	}
	m.blobs = list;
	if (r) {
		m.digest = (char *)r->digest;
		m.total_ns = r->total_ns;
		rpc_reply(p->call, &m.base);
	} else {
		/* One that finds the stream busy is dropped: the next one says more. */
		(void)!rpc_send(p->call, &m.base);
	}
}

static void on_progress(void *arg, const struct image_blob_progress *v, size_t n)
{
	struct push *p = arg;

	if (!p->blobs) {
		p->blobs = calloc(n + 1, sizeof(*p->blobs));
		p->n = p->blobs ? n : 0;
	}
	for (size_t i = 0; i < p->n; i++) {
		char *digest = (char *)p->blobs[i].digest;

		if (!digest)
			digest = strdup(v[i].digest);
		p->blobs[i] = v[i];
		p->blobs[i].digest = digest ? digest : "";
	}
	send_progress(p, NULL);
}

static void on_pushed(void *arg, int code, const struct image_push_result *r, const struct err *err)
{
	struct push *p = arg;

	if (code < 0) {
		log_error("PushImage failed", "image", p->ref, "err", err_text(err));
		reply_err(p->call, code, err);
	} else {
		log_info("image is pushed", "image", p->ref, "digest", r->digest);
		send_progress(p, r);
	}
	push_free(p);
}

static void on_push_cancel(struct rpc_call *call, void *arg)
{
	struct push *p = arg;

	log_info("PushImage was cancelled", "image", p->ref);
	image_push_cancel(p->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	push_free(p);
}

HANDLER(husk_handle_push)
{
	const Husk__PushImageRequest *req = (const void *)msg;
	struct image_auth auth = auth_of(req->auth);
	struct huskd *d = arg;
	struct push *p = calloc(1, sizeof(*p));
	struct err err = { 0 };
	int r = p && (p->ref = strdup(req->image)) ? 0 : -ENOMEM;

	if (r == 0) {
		p->call = call;
		r = image_push(d->images, p->ref, req->auth ? &auth : NULL, on_progress, on_pushed,
			       p, &p->handle, &err);
	}
	if (r < 0) {
		reply_err(call, r, &err);
		if (p)
			push_free(p);
		return;
	}
	log_info("pushing an image", "image", p->ref);
	rpc_on_cancel(call, on_push_cancel, p);
}

/* ---- login ---- */

struct login {
	struct rpc_call *call;
	struct image_login *handle;
};

static void on_login(void *arg, int code, const struct err *err)
{
	Husk__CheckLoginResponse resp = HUSK__CHECK_LOGIN_RESPONSE__INIT;
	struct login *l = arg;

	if (code < 0)
		reply_err(l->call, code, err);
	else
		rpc_reply(l->call, &resp.base);
	free(l);
}

static void on_login_cancel(struct rpc_call *call, void *arg)
{
	struct login *l = arg;

	image_login_cancel(l->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	free(l);
}

HANDLER(husk_handle_login)
{
	const Husk__CheckLoginRequest *req = (const void *)msg;
	struct image_auth auth = auth_of(req->auth);
	struct huskd *d = arg;
	struct login *l = calloc(1, sizeof(*l));
	struct err err = { 0 };
	int r = l ? image_login(d->images, req->server, &auth, on_login, l, &l->handle, &err)
		  : -ENOMEM;

	if (r < 0) {
		reply_err(call, r, &err);
		free(l);
		return;
	}
	l->call = call;
	rpc_on_cancel(call, on_login_cancel, l);
}
