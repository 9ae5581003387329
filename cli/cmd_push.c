/* husk push. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/auth.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "proto/husk.pb-c.h"

struct push {
	struct progress progress;
	char digest[80];
	uint64_t total_ns;
};

static int on_progress(const ProtobufCMessage *m, void *arg)
{
	const Husk__V1__PushProgress *msg = (const void *)m;
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
	Husk__V1__PushImageRequest req = HUSK__V1__PUSH_IMAGE_REQUEST__INIT;
	cleanup_auth struct auth auth = { 0 };
	Runtime__V1__AuthConfig msg;
	int r = auth_for_image(image, &auth, err);

	if (r < 0)
		return r;
	req.image = (char *)image;
	if (!auth_empty(&auth)) {
		auth_to_message(&auth, &msg);
		req.auth = &msg;
	}
	r = rpc_stream(c->rpc, &husk__v1__husk__descriptor, "PushImage", &req.base, on_progress, p,
		       err);
	progress_end(&p->progress);
	if (r == -EPERM && auth_empty(&auth))
		return with_hint(err, r, "'husk login' keeps credentials for a registry");
	if (r == 0 && !*p->digest)
		r = err_set(err, -EBADMSG, "push %s: huskd ended the push without a result", image);
	return r;
}

static int run_push(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	enum progress_kind kind = PROGRESS_PEOPLE;
	int o, code = 0;

	while ((o = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (o == '?')
			return usage_error(&cmd_push, "see the options");
		kind = o == 'q' ? PROGRESS_NONE : PROGRESS_JSON;
	}
	if (optind == argc)
		return usage_error(&cmd_push, "which image?");
	for (int i = optind; i < argc; i++) {
		struct push p = { .total_ns = 0 };
		struct err err = { 0 };

		progress_init(&p.progress, kind);
		if (push(c, argv[i], &p, &err) < 0) {
			code = fail(1, &err);
			continue;
		}
		if (kind == PROGRESS_JSON)
			code |= print_json(json_pack("{s:s, s:s, s:s, s:f}", "event", "done",
						     "image", argv[i], "digest", p.digest,
						     "total_s", (double)p.total_ns / NS_PER_S),
					   false);
		else
			printf("%s\n", p.digest);
		fflush(stdout);
		if (kind == PROGRESS_PEOPLE)
			fprintf(stderr, "%s: pushed in %.2f s\n", argv[i],
				(double)p.total_ns / NS_PER_S);
	}
	return code;
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
	.run = run_push,
	.needs_server = true,
};
