#include "cli/fail.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

int fail(int code, const struct err *err)
{
	fflush(stdout);
	fprintf(stderr, "husk: %s\n", err_text(err));
	return code;
}

int fail_nomem(int code)
{
	struct err err = { 0 };

	(void)err_nomem(&err);
	return fail(code, &err);
}

int with_hint(struct err *err, int code, const char *hint)
{
	struct err before = *err;

	return err_set(err, code, "%s; %s", err_text(&before), hint);
}

/* "husk" or "husk COMMAND", as it is typed. */
static void print_name(const struct command *cmd)
{
	fprintf(stderr, "husk%s%s", cmd ? " " : "", cmd ? cmd->name : "");
}

int usage_error(const struct command *cmd, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	print_name(cmd);
	fputs(": ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry '", stderr);
	print_name(cmd);
	fputs(" --help'.\n", stderr);
	return EXIT_USAGE;
}

void print_help(const struct command *cmd)
{
	printf("%s\n\nUsage: husk %s %s\n", cmd->summary, cmd->name, cmd->args);
	if (cmd->help[0])
		printf("\n%s", cmd->help);
}

/* The word of a long option that getopt has just refused, NULL when it was a short one (optopt). A
 * word with a value that it did not refuse belongs to an option that takes one. */
static const char *refused_long(int o, char **argv, const struct option *longs)
{
	const char *word = argv[optind - 1];
	size_t len = strcspn(word, "=");

	if (!str_starts(word, "--"))
		return NULL;
	if (o == ':' || optopt == 0)
		return word;
	for (; word[len] && longs->name; longs++)
		if (longs->val == optopt && longs->has_arg == no_argument)
			return word;
	return NULL;
}

int next_option(const struct command *cmd, int argc, char **argv, const char *shorts,
		const struct option *longs)
{
	static const struct option none[] = { { 0 } };
	const char *word, *why;
	int o;

	opterr = 0;
	if (!longs)
		longs = none;
	o = getopt_long(argc, argv, shorts, longs, NULL);
	if (o != '?' && o != ':')
		return o;
	word = refused_long(o, argv, longs);
	why = o == ':' ? "needs a value" : word && optopt != 0 ? "takes no value" : NULL;
	fflush(stdout);
	print_name(cmd);
	fputs(why ? ": " : ": unknown option ", stderr);
	if (word)
		fprintf(stderr, "%.*s", (int)strcspn(word, "="), word);
	else
		fprintf(stderr, "-%c", optopt);
	fprintf(stderr, "%s%s; '", why ? " " : "", why ? why : "");
	print_name(cmd);
	fprintf(stderr, " --help' %s\n", why ? "tells more" : "lists them");
	return '?';
}

int no_arguments(const struct command *cmd, int argc, char **argv)
{
	if (next_option(cmd, argc, argv, ":", NULL) != -1)
		return EXIT_USAGE;
	return optind < argc ? usage_error(cmd, "unknown argument '%s'", argv[optind]) : 0;
}
