#include "cli/transfer.h"

#include <errno.h>
#include <getopt.h>

#include "cli/auth/auth.h"

int transfer_each(struct cli *c, const struct command *cmd, const char *short_options, int argc,
		  char **argv, transfer_one_fn one)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	enum progress_kind kind = PROGRESS_PEOPLE;
	int o, code = 0;

	while ((o = next_option(cmd, argc, argv, short_options, options)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		kind = o == 'q' ? PROGRESS_NONE : PROGRESS_JSON;
	}
	if (optind == argc)
		return usage_error(cmd, "no image given");
	for (int i = optind; i < argc; i++)
		code |= one(c, argv[i], kind);
	return code;
}

int transfer_call(struct cli *c, const struct transfer *t,
		  int (*on_msg)(const ProtobufCMessage *msg, void *arg), void *arg, struct err *err)
{
	cleanup_auth struct auth auth = { 0 };
	Cri__AuthConfig msg;
	int r = auth_for_image(t->image, &auth, err);

	if (r < 0)
		return r;
	if (!auth_empty(&auth)) {
		auth_to_message(&auth, &msg);
		*t->auth = &msg;
	}
	r = rpc_stream(c->rpc, &husk__husk__descriptor, t->method, t->req, on_msg, arg, err);
	*t->auth = NULL;
	progress_end(t->progress);
	if (r == -EPERM && auth_empty(&auth))
		return with_hint(err, r, "'husk login' keeps credentials for a registry");
	return r;
}
