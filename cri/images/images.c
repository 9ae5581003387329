#include "cri/images/images.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"

struct image_auth images_auth(const Cri__AuthConfig *a)
{
	if (!a)
		return (struct image_auth){ 0 };
	return (struct image_auth){
		.username = a->username,
		.password = a->password,
		.auth = a->auth,
		.server_address = a->server_address,
		.identity_token = a->identity_token,
		.registry_token = a->registry_token,
	};
}

int images_pull(struct huskd *d, const Cri__PullImageRequest *req, image_progress_fn progress,
		image_done_fn done, void *arg, struct image_pull **ret, struct err *err)
{
	const Cri__ImageSpec *image = req->image;
	struct image_auth auth = images_auth(req->auth);

	if (!image || str_empty(image->image))
		return err_set(err, -EINVAL, "image is empty");
	if (!str_empty(image->runtime_handler) && !str_eq(image->runtime_handler, "husk"))
		return err_set(err, -EINVAL,
			       "no runtime handler \"%s\" (there are \"\" and \"husk\")",
			       image->runtime_handler);
	log_info("pulling an image", "image", image->image);
	return image_pull(d->images, image->image, req->auth ? &auth : NULL, progress, done, arg,
			  ret, err);
}

/* ---- errors ---- */

void images_reply_err(struct rpc_call *call, int code, const struct err *err)
{
	struct err valid = *err;

	utf8_repair(valid.msg);
	rpc_reply_err(call, code, &valid);
}

/*
 * Kubelet knows some errors by their first word, and sees that word only with the code UNKNOWN (it
 * takes no part of other codes away, cri-client/pkg/remote_image.go). SignatureValidationFailed is
 * never said: no signatures are looked at.
 */
void images_reply_cri_err(struct rpc_call *call, int code, const struct err *err)
{
	struct err known = { 0 };

	if (!image_err_unavailable(code)) {
		images_reply_err(call, code, err);
		return;
	}
	(void)err_set(&known, code, "RegistryUnavailable: %s",
		      err->msg[0] ? err_text(err) : strerror(-code));
	utf8_repair(known.msg);
	rpc_reply_status(call, RPC_UNKNOWN, known.msg);
}

/* ---- progress ---- */

void images_progress_fini(struct images_progress *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->parts[i].digest);
	free(v->parts);
	*v = (struct images_progress){ 0 };
}

static void resize(struct images_progress *v, size_t n)
{
	if (v->n == n)
		return;
	images_progress_fini(v);
	v->parts = calloc(n, sizeof(*v->parts));
	v->n = v->parts ? n : 0;
}

static void set_part(struct images_part *p, const char *digest, uint64_t done, uint64_t size,
		     int state)
{
	if (!str_eq(p->digest, digest)) {
		free(p->digest);
		p->digest = strdup(digest);
	}
	p->done = done;
	p->size = size;
	p->state = state;
}

void images_progress_layers(struct images_progress *v, const struct image_layer_progress *layers,
			    size_t n)
{
	resize(v, n);
	for (size_t i = 0; i < v->n; i++)
		set_part(&v->parts[i], layers[i].digest, layers[i].fetched, layers[i].size,
			 (int)layers[i].state);
}

void images_progress_blobs(struct images_progress *v, const struct image_blob_progress *blobs,
			   size_t n)
{
	resize(v, n);
	for (size_t i = 0; i < v->n; i++)
		set_part(&v->parts[i], blobs[i].digest, blobs[i].sent, blobs[i].size,
			 (int)blobs[i].state);
}

/* n pointers and n messages behind them. */
static void *list_new(size_t n, size_t message_size)
{
	return n ? malloc(n * (sizeof(void *) + message_size)) : NULL;
}

static char *digest_of(const struct images_part *p)
{
	return p->digest ? p->digest : (char *)"";
}

size_t images_layer_list(const struct images_progress *v, Husk__LayerProgress ***ret)
{
	Husk__LayerProgress **list = list_new(v->n, sizeof(**list));
	Husk__LayerProgress *m = list ? (void *)&list[v->n] : NULL;

	*ret = list;
	if (!list)
		return 0;
	for (size_t i = 0; i < v->n; i++) {
		husk__layer_progress__init(&m[i]);
		m[i].digest = digest_of(&v->parts[i]);
		m[i].fetched = v->parts[i].done;
		m[i].size = v->parts[i].size;
		m[i].state = (Husk__LayerProgress__State)v->parts[i].state;
		list[i] = &m[i];
	}
	return v->n;
}

size_t images_blob_list(const struct images_progress *v, Husk__BlobProgress ***ret)
{
	Husk__BlobProgress **list = list_new(v->n, sizeof(**list));
	Husk__BlobProgress *m = list ? (void *)&list[v->n] : NULL;

	*ret = list;
	if (!list)
		return 0;
	for (size_t i = 0; i < v->n; i++) {
		husk__blob_progress__init(&m[i]);
		m[i].digest = digest_of(&v->parts[i]);
		m[i].sent = v->parts[i].done;
		m[i].size = v->parts[i].size;
		m[i].state = (Husk__BlobProgress__State)v->parts[i].state;
		list[i] = &m[i];
	}
	return v->n;
}
