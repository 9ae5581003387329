#include "cri/images/husk_pull.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/images/images.h"

struct pull {
	struct rpc_call *call;
	struct image_pull *handle;
	char *ref;
	struct images_progress last;
};

static void pull_free(struct pull *p)
{
	images_progress_fini(&p->last);
	free(p->ref);
	free(p);
}

static void husk_pull_on_progress(void *arg, const struct image_progress *progress)
{
	Husk__PullProgress m = HUSK__PULL_PROGRESS__INIT;
	cleanup_free Husk__LayerProgress **list = NULL;
	struct pull *p = arg;

	images_progress_layers(&p->last, progress->layers, progress->n_layers);
	m.n_layers = images_layer_list(&p->last, &list);
	m.layers = list;
	/* One that finds the stream busy is dropped: the next one says more. */
	(void)!rpc_send(p->call, &m.base);
}

static void reply_pulled(struct pull *p, const struct image_pull_result *result)
{
	Husk__PullProgress m = HUSK__PULL_PROGRESS__INIT;
	cleanup_free Husk__LayerProgress **list = NULL;

	/* All of it is there now, whatever the last report said. */
	for (size_t i = 0; i < p->last.n; i++) {
		if (p->last.parts[i].state != IMAGE_LAYER_SHARED)
			p->last.parts[i].state = IMAGE_LAYER_DONE;
	}
	m.n_layers = images_layer_list(&p->last, &list);
	m.layers = list;
	m.image_ref = (char *)result->id;
	m.fetch_ns = result->fetch_ns;
	m.total_ns = result->total_ns;
	rpc_reply(p->call, &m.base);
}

static void husk_pull_on_done(void *arg, int code, const struct image_pull_result *result,
			      const struct err *err)
{
	struct pull *p = arg;

	if (code < 0) {
		log_limited(LOG_ERROR, "PullImage failed", "image", p->ref, "err", err_text(err));
		images_reply_cri_err(p->call, code, err);
	} else {
		log_info("image is pulled", "image", p->ref, "id", result->id);
		reply_pulled(p, result);
	}
	pull_free(p);
}

static void husk_pull_on_cancel(struct rpc_call *call, void *arg)
{
	struct pull *p = arg;

	log_info("PullImage was cancelled", "image", p->ref);
	image_pull_cancel(p->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	pull_free(p);
}

void husk_pull_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__PullImageRequest *req = (const void *)msg;
	struct pull *p = calloc(1, sizeof(*p));
	struct err err = { 0 };
	int r = -ENOMEM;

	if (p && (p->ref = strdup(req->image ? req->image->image : ""))) {
		p->call = call;
		r = images_pull(arg, req, husk_pull_on_progress, husk_pull_on_done, p, &p->handle,
				&err);
	}
	if (r == 0) {
		rpc_on_cancel(call, husk_pull_on_cancel, p);
		return;
	}
	images_reply_cri_err(call, r, &err);
	if (p)
		pull_free(p);
}
