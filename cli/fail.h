/*
 * How husk says that something is wrong: a line on standard error, "husk: TEXT" or, for wrong
 * usage, "husk COMMAND: TEXT", with what to do about it where that is known. One thread.
 */
#ifndef HUSK_CLI_FAIL_H
#define HUSK_CLI_FAIL_H

#include "base/compiler.h"
#include "base/err.h"

#define EXIT_USAGE 2
/* `run` and `exec` end with the container's code; this one means that husk itself failed. */
#define EXIT_HUSK 125

struct command;
struct option;

/* Prints the text and returns `code`, an exit code. */
int fail(int code, const struct err *err);
int fail_nomem(int code); /* the text is "out of memory" */
/* Appends "; HINT" to the text: what to do now. Returns `code`, a negative errno. */
int with_hint(struct err *err, int code, const char *hint);

/* Prints the text, then "Try 'husk COMMAND --help'.", returns EXIT_USAGE. */
int usage_error(const struct command *cmd, const char *fmt, ...) printf_like(2, 3);
void print_help(const struct command *cmd);
/* For a command without options and arguments: 0, or EXIT_USAGE when there are some. */
int no_arguments(const struct command *cmd, int argc, char **argv);

/* getopt_long, which says itself which option is wrong, and then returns '?'. cmd NULL: husk's own
 * options. `shorts` has a ':' in front, behind a '+' if there is one; longs NULL = none. */
int next_option(const struct command *cmd, int argc, char **argv, const char *shorts,
		const struct option *longs);

#endif
