/* containerd-shim-husk-v2: the shim of one pod. See ARCHITECTURE.md. Flags are those that
 * containerd gives to a shim, with one dash or two, in any order, before or after the subcommand.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/cmd.h"
#include "shim/id.h"

static const char usage[] =
	"Usage: containerd-shim-husk-v2 -namespace NS -id ID -address ADDRESS [-bundle DIR] "
	"COMMAND\n"
	"Runs one pod in a virtual machine. Started by huskd or containerd, not by people.\n"
	"\n"
	"  start    start the shim's daemon and print its address; runtime options on standard "
	"input\n"
	"  delete   clean up after a daemon that died\n"
	"\n"
	"  -namespace NS          containerd's namespace (\"husk\" for huskd)\n"
	"  -id ID                 pod or container\n"
	"  -address ADDRESS       containerd's or huskd's socket\n"
	"  -bundle DIR            default: the working directory\n"
	"  -publish-binary PATH   accepted; events go to TTRPC_ADDRESS\n"
	"  -debug                 log more\n"
	"  -v                     print the version\n";

static noreturn_fn void bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "containerd-shim-husk-v2: %s%s%s\nTry 'containerd-shim-husk-v2 -help'.\n",
		what, value ? ": " : "", value ? value : "");
	exit(2);
}

/* The value of flag `name` at argv[*i] ("-name value" or "-name=value"), or NULL if it is another.
 */
static const char *flag_value(char **argv, int *i, const char *name)
{
	const char *a = argv[*i];
	size_t n = strlen(name);

	a += a[0] == '-';
	a += a[0] == '-';
	if (strncmp(a, name, n) != 0)
		return NULL;
	if (a[n] == '=')
		return a + n + 1;
	if (a[n] != 0)
		return NULL;
	if (!argv[*i + 1])
		bad_usage("a value is missing", argv[*i]);
	return argv[++*i];
}

static bool is_flag(const char *a, const char *name)
{
	a += a[0] == '-';
	a += a[0] == '-';
	return str_eq(a, name);
}

static void take_flag(struct shim_args *args, char **argv, int *i)
{
	struct {
		const char *name;
		const char **value;
	} flags[] = {
		{ "namespace", &args->ns },
		{ "id", &args->id },
		{ "address", &args->address },
		{ "bundle", &args->bundle },
		{ "publish-binary", &args->publish_binary },
	};
	const char *v;

	for (size_t f = 0; f < ARRAY_SIZE(flags); f++) {
		v = flag_value(argv, i, flags[f].name);
		if (v) {
			*flags[f].value = v;
			return;
		}
	}
	if (is_flag(argv[*i], "debug")) {
		args->debug = true;
	} else if (is_flag(argv[*i], "v") || is_flag(argv[*i], "version")) {
		puts("containerd-shim-husk-v2:\n  Version:  " HUSK_VERSION);
		exit(0);
	} else if (is_flag(argv[*i], "h") || is_flag(argv[*i], "help")) {
		fputs(usage, stdout);
		exit(0);
	} else {
		bad_usage("unknown flag", argv[*i]);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct shim_args *args);
	} commands[] = {
		{ "start", shim_start },
		{ "delete", shim_delete },
		{ "daemon", shim_daemon }, /* by `start` only */
	};
	struct shim_args args = { .ns = "", .id = "", .address = "", .bundle = "" };
	static char bundle[PATH_MAX];
	const char *command = NULL;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			take_flag(&args, argv, &i);
		else if (!command)
			command = argv[i];
		else
			bad_usage("unexpected argument", argv[i]);
	}
	if (!command)
		bad_usage("no command", NULL);
	if (str_empty(args.ns) || !shim_id_valid(args.id))
		bad_usage("-namespace and -id are needed", NULL);
	if (!realpath(*args.bundle ? args.bundle : ".", bundle))
		bad_usage("-bundle", strerror(errno));
	args.bundle = bundle;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (str_eq(commands[i].name, command))
			return commands[i].run(&args);
	}
	bad_usage("unknown command", command);
}
