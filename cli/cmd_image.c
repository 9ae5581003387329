/* husk pull, images, rmi. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "proto/husk.pb-c.h"

struct pull {
	struct progress progress;
	char *image_ref; /* owned */
	struct pull_times times;
};

static int on_progress(const ProtobufCMessage *m, void *arg)
{
	const Husk__V1__PullProgress *msg = (const void *)m;
	struct pull *p = arg;
	bool last = !str_empty(msg->image_ref);

	progress_show(&p->progress, msg, last);
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
	Runtime__V1__PullImageRequest req = RUNTIME__V1__PULL_IMAGE_REQUEST__INIT;
	Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
	int r;

	spec.image = (char *)image;
	req.image = &spec;
	progress_init(&p->progress);
	r = rpc_stream(c->rpc, &husk__v1__husk__descriptor, "PullImage", &req.base, on_progress, p,
		       err);
	if (r < 0)
		return err_wrap(err, r, "pull %s", image);
	if (!p->image_ref)
		return err_set(err, -EBADMSG, "pull %s: huskd ended the pull without a result",
			       image);
	return 0;
}

int ensure_image(struct cli *c, const char *image, bool always_pull, char **ret_ref,
		 struct pull_times *ret_times, struct err *err)
{
	Runtime__V1__ImageStatusRequest req = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
	Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
	Runtime__V1__ImageStatusResponse *resp = NULL;
	struct pull p = { 0 };
	int r;

	spec.image = (char *)image;
	req.image = &spec;
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
		runtime__v1__image_status_response__free_unpacked(resp, NULL);
	return r == 0 && !*ret_ref ? err_errno(err, -ENOMEM, "%s", image) : r;
}

static int run_pull(struct cli *c, int argc, char **argv)
{
	struct err err = { 0 };
	struct pull p = { 0 };

	if (argc != 2)
		return usage_error(&cmd_pull, argc < 2 ? "which image?" : "one image at a time");
	if (pull(c, argv[1], &p, &err) < 0)
		return fail(1, &err);
	fprintf(stderr, "%s: fetched in %.2f s, ready after %.2f s\n", argv[1],
		(double)p.times.fetch_ns / NS_PER_S, (double)p.times.total_ns / NS_PER_S);
	printf("%s\n", p.image_ref);
	free_ptr(&p.image_ref);
	return 0;
}

const struct command cmd_pull = {
	.name = "pull",
	.args = "IMAGE",
	.summary = "Fetch an image from its registry",
	.help = "  IMAGE is a reference as Docker knows it: busybox, debian:bookworm,\n"
		"  127.0.0.1:5000/team/app@sha256:... Registries on the loopback interface are "
		"asked\n"
		"  by plain HTTP. Prints the image's id.\n",
	.run = run_pull,
	.needs_server = true,
};

static int run_images(struct cli *c, int argc, char **argv)
{
	Runtime__V1__ListImagesRequest req = RUNTIME__V1__LIST_IMAGES_REQUEST__INIT;
	Runtime__V1__ListImagesResponse *resp = NULL;
	struct err err = { 0 };
	bool quiet = argc == 2 && (str_eq(argv[1], "-q") || str_eq(argv[1], "--quiet"));
	char size[32];

	if (argc > 1 && !quiet)
		return usage_error(&cmd_images, "unknown argument '%s'", argv[1]);
	if (image_call(c, "ListImages", &req, CALL_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	if (!quiet)
		printf("%-44s %-14s %10s\n", "IMAGE", "ID", "SIZE");
	for (size_t i = 0; i < resp->n_images; i++) {
		const Runtime__V1__Image *im = resp->images[i];
		const char *name = im->n_repo_tags	? im->repo_tags[0]
				   : im->n_repo_digests ? im->repo_digests[0]
							: "<none>";

		if (quiet)
			printf("%s\n", im->id);
		else
			printf("%-44s %-14.12s %10s\n", name,
			       str_starts(im->id, "sha256:") ? im->id + 7 : im->id,
			       human_size(im->size, size));
		for (size_t t = 1; !quiet && t < im->n_repo_tags; t++)
			printf("%s\n", im->repo_tags[t]);
	}
	runtime__v1__list_images_response__free_unpacked(resp, NULL);
	return 0;
}

const struct command cmd_images = {
	.name = "images",
	.args = "[-q]",
	.summary = "List the images that are here",
	.help = "  -q, --quiet   ids only\n",
	.run = run_images,
	.needs_server = true,
};

static int run_rmi(struct cli *c, int argc, char **argv)
{
	int code = 0;

	if (argc < 2)
		return usage_error(&cmd_rmi, "which image?");
	for (int i = 1; i < argc; i++) {
		Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
		Runtime__V1__ImageStatusRequest ask = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
		Runtime__V1__RemoveImageRequest req = RUNTIME__V1__REMOVE_IMAGE_REQUEST__INIT;
		Runtime__V1__ImageStatusResponse *resp = NULL;
		struct err err = { 0 };
		bool there;

		spec.image = argv[i];
		ask.image = req.image = &spec;
		/* CRI's RemoveImage of an unknown image is no error; a person wants to know. */
		if (image_call(c, "ImageStatus", &ask, CALL_TIMEOUT_MS, &resp, &err) < 0) {
			code = fail(1, &err);
			continue;
		}
		there = resp->image != NULL;
		runtime__v1__image_status_response__free_unpacked(resp, NULL);
		if (!there) {
			err_set(&err, -ENOENT, "there is no image '%s'; 'husk images' lists them",
				argv[i]);
			code = fail(1, &err);
		} else if (image_call(c, "RemoveImage", &req, CALL_TIMEOUT_MS, NULL, &err) < 0) {
			code = fail(1, &err);
		} else {
			printf("%s\n", argv[i]);
		}
	}
	return code;
}

const struct command cmd_rmi = {
	.name = "rmi",
	.args = "IMAGE...",
	.summary = "Remove images, with every name they have",
	.help = "",
	.run = run_rmi,
	.needs_server = true,
};
