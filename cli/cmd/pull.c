/* husk pull. */
#include <stdio.h>

#include "base/util.h"
#include "cli/pull.h"
#include "cli/transfer.h"

static int pull_one(struct cli *c, const char *image, enum progress_kind kind)
{
	struct pulled p;
	struct err err = { 0 };
	int code = 0;

	if (pull_image(c, image, kind, &p, &err) < 0)
		return fail(1, &err);
	if (kind == PROGRESS_JSON) {
		code = print_json(json_pack("{s:s, s:s, s:s, s:f, s:f}", "event", "done", "image",
					    image, "id", p.image_ref, "fetch_s",
					    (double)p.fetch_ns / NS_PER_S, "total_s",
					    (double)p.total_ns / NS_PER_S),
				  false);
	} else {
		if (kind == PROGRESS_PEOPLE)
			fprintf(stderr, "%s: fetched in %.2f s, ready after %.2f s\n", image,
				(double)p.fetch_ns / NS_PER_S, (double)p.total_ns / NS_PER_S);
		printf("%s\n", p.image_ref);
		fflush(stdout);
	}
	free_ptr(&p.image_ref);
	return code;
}

static int pull_run(struct cli *c, int argc, char **argv)
{
	return transfer_each(c, &cmd_pull, "+:q", argc, argv, pull_one);
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
	.run = pull_run,
	.needs_server = true,
};
