/* husk: the command line. Start order: options, command, connection, command's work. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/process.h"
#include "base/util.h"
#include "cli/cli.h"

#define DEFAULT_ENDPOINT "unix:///run/husk/husk.sock"

static const struct command *const commands[] = {
	/* clang-format off */
	&cmd_run, &cmd_exec, &cmd_attach, &cmd_logs, &cmd_ps, &cmd_pods, &cmd_stop, &cmd_rm,
	&cmd_pull, &cmd_push, &cmd_images, &cmd_inspect, &cmd_tag, &cmd_rmi, &cmd_save,
	&cmd_load, &cmd_login, &cmd_logout, &cmd_df, &cmd_prune, &cmd_check, &cmd_version,
	/* clang-format on */
};

static void print_overview(FILE *out)
{
	fprintf(out,
		"husk runs containers, each pod in a small virtual machine of its own.\n\n"
		"Usage: husk [--endpoint unix:///SOCKET] COMMAND [OPTIONS] [ARGS]\n\n"
		"Commands:\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
	fprintf(out,
		"\nOptions:\n"
		"  --endpoint ADDR   socket of huskd (also HUSK_ENDPOINT, "
		"CONTAINER_RUNTIME_ENDPOINT;\n"
		"                    default " DEFAULT_ENDPOINT
		")\n"
		"  --help            this text; 'husk COMMAND --help' tells more\n"
		"  --version         the version of this program\n\n"
		"Example:\n"
		"  husk run --rm busybox uname -a\n");
}

static const struct command *command_named(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (str_eq(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static bool asks_help(int argc, char **argv)
{
	return argc > 1 && (str_eq(argv[1], "--help") || str_eq(argv[1], "-h"));
}

static const char *default_endpoint(void)
{
	const char *e = getenv("HUSK_ENDPOINT");

	if (str_empty(e))
		e = getenv("CONTAINER_RUNTIME_ENDPOINT");
	return str_empty(e) ? DEFAULT_ENDPOINT : e;
}

static int run_command(struct cli *c, const struct command *cmd, int argc, char **argv)
{
	bool own_code = cmd == &cmd_run || cmd == &cmd_exec || cmd == &cmd_attach;
	struct err err = { 0 };
	int r;

	if (asks_help(argc, argv)) {
		print_help(cmd);
		return 0;
	}
	if (cmd->needs_server && rpc_open(c->endpoint, &c->rpc, &err) < 0)
		return fail(own_code ? EXIT_HUSK : 1, &err);
	r = cmd->run(c, argc, argv);
	rpc_close(c->rpc);
	return fflush(stdout) == 0 ? r : 1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "endpoint", required_argument, NULL, 'E' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	struct cli c = { .endpoint = default_endpoint() };
	const struct command *cmd;
	int o;

	if (open_std_fds() < 0)
		return EXIT_FAILURE;
	/* gRPC's own messages are for its developers; errors come back as a status. */
	(void)setenv("GRPC_VERBOSITY", "NONE", 0);
	while ((o = next_option(NULL, argc, argv, "+:hv", options)) != -1) {
		switch (o) {
		case 'E':
			c.endpoint = optarg;
			break;
		case 'h':
			print_overview(stdout);
			return 0;
		case 'v':
			printf("husk %s\n", HUSK_VERSION);
			return 0;
		default:
			return EXIT_USAGE;
		}
	}
	if (optind == argc) {
		print_overview(stderr);
		return EXIT_USAGE;
	}
	if (str_eq(argv[optind], "help")) {
		cmd = optind + 1 < argc ? command_named(argv[optind + 1]) : NULL;
		if (cmd)
			print_help(cmd);
		else
			print_overview(stdout);
		return 0;
	}
	cmd = command_named(argv[optind]);
	if (!cmd) {
		fprintf(stderr, "husk: unknown command %s; 'husk --help' lists them\n",
			argv[optind]);
		return EXIT_USAGE;
	}
	argc -= optind;
	argv += optind;
	optind = 0; /* the command parses its own options from the start */
	return run_command(&c, cmd, argc, argv);
}
