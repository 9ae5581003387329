/* husk pull, and the pull that `husk run` does. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/transfer.h"
#include "proto/husk.pb-c.h"

struct pull {
	struct progress progress;
	char *image_ref; /* owned */
	struct pull_times times;
};

static int on_progress(const ProtobufCMessage *m, void *arg)
{
	const Husk__PullProgress *msg = (const void *)m;
	struct pull *p = arg;
	bool last = !str_empty(msg->image_ref);

	progress_layers(&p->progress, msg->layers, msg->n_layers, last);
	if (!last)
		return 0;
	free_ptr(&p->image_ref);
	p->image_ref = strdup(msg->image_ref);
	p->times.fetch_ns = msg->fetch_ns;
	p->times.total_ns = msg->total_ns;
	return p->image_ref ? 0 : -ENOMEM;
}

static int pull(struct cli *c, const char *image, struct pull *p, struct err *err)
{
	Cri__PullImageRequest req = CRI__PULL_IMAGE_REQUEST__INIT;
	Cri__ImageSpec spec = CRI__IMAGE_SPEC__INIT;
	const struct transfer t = { .method = "PullImage",
				    .image = image,
				    .req = &req.base,
				    .auth = &req.auth,
				    .progress = &p->progress };
	int r;

	spec.image = (char *)image;
	req.image = &spec;
	r = transfer_call(c, &t, on_progress, p, err);
	if (r < 0)
		return r;
	if (!p->image_ref)
		return err_set(err, -EBADMSG, "pull %s: huskd ended the pull without a result",
			       image);
	return 0;
}

int ensure_image(struct cli *c, const char *image, bool always_pull, char **ret_ref,
		 struct pull_times *ret_times, struct err *err)
{
	Cri__ImageStatusRequest req = CRI__IMAGE_STATUS_REQUEST__INIT;
	Cri__ImageSpec spec = CRI__IMAGE_SPEC__INIT;
	Cri__ImageStatusResponse *resp = NULL;
	struct pull p = { 0 };
	int r;

	spec.image = (char *)image;
	req.image = &spec;
	progress_init(&p.progress, PROGRESS_PEOPLE);
	r = always_pull ? 0 : image_call(c, "ImageStatus", &req, CALL_TIMEOUT_MS, &resp, err);
	if (r < 0)
		return r;
	if (resp && resp->image)
		*ret_ref = strdup(resp->image->id);
	else
		r = pull(c, image, &p, err);
	if (r == 0 && p.image_ref)
		*ret_ref = p.image_ref;
	*ret_times = p.times;
	if (resp)
		cri__image_status_response__free_unpacked(resp, NULL);
	return r == 0 && !*ret_ref ? err_errno(err, -ENOMEM, "%s", image) : r;
}

static int pull_one(struct cli *c, const char *image, enum progress_kind kind)
{
	struct err err = { 0 };
	struct pull p = { 0 };
	int code = 0;

	progress_init(&p.progress, kind);
	if (pull(c, image, &p, &err) < 0)
		return fail(1, &err);
	if (kind == PROGRESS_JSON) {
		code = print_json(json_pack("{s:s, s:s, s:s, s:f, s:f}", "event", "done", "image",
					    image, "id", p.image_ref, "fetch_s",
					    (double)p.times.fetch_ns / NS_PER_S, "total_s",
					    (double)p.times.total_ns / NS_PER_S),
				  false);
	} else {
		if (kind == PROGRESS_PEOPLE)
			fprintf(stderr, "%s: fetched in %.2f s, ready after %.2f s\n", image,
				(double)p.times.fetch_ns / NS_PER_S,
				(double)p.times.total_ns / NS_PER_S);
		printf("%s\n", p.image_ref);
		fflush(stdout);
	}
	free_ptr(&p.image_ref);
	return code;
}

static int run_pull(struct cli *c, int argc, char **argv)
{
	return transfer_each(c, &cmd_pull, "+q", argc, argv, pull_one);
}

const struct command cmd_pull = {
	.name = "pull",
	.args = "[-q | --json] IMAGE...",
	.summary = "Fetch images from their registries",
	.help = "  -q, --quiet   print nothing but the image's id\n"
		"  --json        progress and result as lines of JSON\n\n"
		"  IMAGE is a reference as Docker knows it: busybox, debian:bookworm,\n"
		"  127.0.0.1:5000/team/app@sha256:... Registries on the loopback interface are "
		"asked\n"
		"  by plain HTTP. Credentials are those of 'husk login'. Prints the image's id.\n",
	.run = run_pull,
	.needs_server = true,
};
