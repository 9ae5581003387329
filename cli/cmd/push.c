/* husk push. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/transfer.h"

struct push {
	struct progress progress;
	char digest[80];
	uint64_t total_ns;
};

static int push_on_progress(const ProtobufCMessage *m, void *arg)
{
	const Husk__PushProgress *msg = (const void *)m;
	struct push *p = arg;
	bool last = *msg->digest;

	progress_blobs(&p->progress, msg->blobs, msg->n_blobs, last);
	if (last) {
		(void)snprintf(p->digest, sizeof(p->digest), "%s", msg->digest);
		p->total_ns = msg->total_ns;
	}
	return 0;
}

static int push(struct cli *c, const char *image, struct push *p, struct err *err)
{
	Husk__PushImageRequest req = HUSK__PUSH_IMAGE_REQUEST__INIT;
	const struct transfer t = { .method = "PushImage",
				    .image = image,
				    .req = &req.base,
				    .auth = &req.auth,
				    .progress = &p->progress };
	int r;

	req.image = (char *)image;
	r = transfer_call(c, &t, push_on_progress, p, err);
	if (r == 0 && !*p->digest)
		r = err_set(err, -EBADMSG, "push %s: huskd ended the push without a result", image);
	return r;
}

static int push_one(struct cli *c, const char *image, enum progress_kind kind)
{
	struct push p = { .total_ns = 0 };
	struct err err = { 0 };
	int code = 0;

	progress_init(&p.progress, kind);
	if (push(c, image, &p, &err) < 0)
		return fail(1, &err);
	if (kind == PROGRESS_JSON)
		code = print_json(json_pack("{s:s, s:s, s:s, s:f}", "event", "done", "image", image,
					    "digest", p.digest, "total_s",
					    (double)p.total_ns / NS_PER_S),
				  false);
	else
		printf("%s\n", p.digest);
	fflush(stdout);
	if (kind == PROGRESS_PEOPLE)
		fprintf(stderr, "%s: pushed in %.2f s\n", image, (double)p.total_ns / NS_PER_S);
	return code;
}

static int push_run(struct cli *c, int argc, char **argv)
{
	return transfer_each(c, &cmd_push, ":q", argc, argv, push_one);
}

const struct command cmd_push = {
	.name = "push",
	.args = "[-q | --json] NAME...",
	.summary = "Send images to their registries",
	.help = "  -q, --quiet   print nothing but the manifest's digest\n"
		"  --json        progress and result as lines of JSON\n\n"
		"  NAME is a name that an image has here ('husk tag' gives it one) and says where "
		"it\n"
		"  goes: 127.0.0.1:5000/team/app:v1. What the registry has is not sent again, and "
		"a\n"
		"  broken upload goes on. Credentials are those of 'husk login'.\n",
	.run = push_run,
	.needs_server = true,
};
