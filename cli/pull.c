#include "cli/pull.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/transfer.h"

struct pull {
	struct progress progress;
	struct pulled result;
};

static int pull_on_progress(const ProtobufCMessage *m, void *arg)
{
	const Husk__PullProgress *msg = (const void *)m;
	struct pull *p = arg;
	bool last = !str_empty(msg->image_ref);

	progress_layers(&p->progress, msg->layers, msg->n_layers, last);
	if (!last)
		return 0;
	free_ptr(&p->result.image_ref);
	p->result.image_ref = strdup(msg->image_ref);
	p->result.fetch_ns = msg->fetch_ns;
	p->result.total_ns = msg->total_ns;
	return p->result.image_ref ? 0 : -ENOMEM;
}

int pull_image(struct cli *c, const char *image, enum progress_kind kind, struct pulled *ret,
	       struct err *err)
{
	Cri__PullImageRequest req = CRI__PULL_IMAGE_REQUEST__INIT;
	Cri__ImageSpec spec = CRI__IMAGE_SPEC__INIT;
	struct pull p = { 0 };
	const struct transfer t = { .method = "PullImage",
				    .image = image,
				    .req = &req.base,
				    .auth = &req.auth,
				    .progress = &p.progress };
	int r;

	spec.image = (char *)image;
	req.image = &spec;
	progress_init(&p.progress, kind);
	r = transfer_call(c, &t, pull_on_progress, &p, err);
	if (r == 0 && !p.result.image_ref)
		r = err_set(err, -EBADMSG, "pull %s: huskd ended the pull without a result", image);
	if (r < 0) {
		free(p.result.image_ref);
		return r;
	}
	*ret = p.result;
	return 0;
}

/* *ret: the image's id, NULL when it is not here. */
static int find_image(struct cli *c, const char *image, char **ret, struct err *err)
{
	Cri__ImageStatusRequest req = CRI__IMAGE_STATUS_REQUEST__INIT;
	Cri__ImageSpec spec = CRI__IMAGE_SPEC__INIT;
	Cri__ImageStatusResponse *resp;
	char *id = NULL;
	int r;

	spec.image = (char *)image;
	req.image = &spec;
	r = image_call(c, "ImageStatus", &req, CALL_TIMEOUT_MS, &resp, err);
	if (r < 0)
		return r;
	if (resp->image) {
		id = strdup(resp->image->id);
		r = id ? 0 : err_nomem(err);
	}
	cri__image_status_response__free_unpacked(resp, NULL);
	if (r == 0)
		*ret = id;
	return r;
}

int pull_missing(struct cli *c, const char *image, bool always_pull, struct pulled *ret,
		 struct err *err)
{
	char *id = NULL;
	int r = always_pull ? 0 : find_image(c, image, &id, err);

	if (r < 0)
		return r;
	if (!id)
		return pull_image(c, image, PROGRESS_PEOPLE, ret, err);
	*ret = (struct pulled){ .image_ref = id };
	return 0;
}
