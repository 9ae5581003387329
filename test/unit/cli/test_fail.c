/* What husk says about wrong usage, whole and from the program itself. No server is asked. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"

#define ARGS_MAX 6

static char *husk;

static int set_up(void **state)
{
	return program_path(NULL, "../bin/husk", &husk, NULL);
}

static int tear_down(void **state)
{
	free(husk);
	return 0;
}

/* Runs husk; its exit code, and what it wrote to standard error. */
static int run(const char *const *args, char **ret_text)
{
	char *argv[ARGS_MAX + 2] = { (char *)"husk" };
	struct spawn s = spawn_of(husk, argv, OOM_SCORE_KEEP);
	int p[2], pidfd, status;
	struct err err = { 0 };
	pid_t pid;

	for (size_t i = 0; i < ARGS_MAX && args[i]; i++)
		argv[i + 1] = (char *)args[i];
	assert_int_equal(pipe(p), 0);
	s.fds[2] = p[1];
	s.n_fds = 3;
	assert_ok(spawn_run(&s, &pid, &pidfd, &err), &err);
	(void)close(p[1]);
	assert_int_equal(read_fd(p[0], 64 * KIB, ret_text, NULL), 0);
	(void)close(p[0]);
	(void)close(pidfd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void messages(void **state)
{
	static const struct {
		const char *args[ARGS_MAX];
		const char *text;
	} t[] = {
		{ { "--foo" }, "husk: unknown option --foo; 'husk --help' lists them\n" },
		{ { "-x" }, "husk: unknown option -x; 'husk --help' lists them\n" },
		{ { "--endpoint" }, "husk: --endpoint needs a value; 'husk --help' tells more\n" },
		{ { "start" }, "husk: unknown command start; 'husk --help' lists them\n" },
		{ { "run", "--foo=bar", "img" },
		  "husk run: unknown option --foo; 'husk run --help' lists them\n" },
		{ { "run", "--rm=yes", "img" },
		  "husk run: --rm takes no value; 'husk run --help' tells more\n" },
		{ { "run", "--name" },
		  "husk run: --name needs a value; 'husk run --help' tells more\n" },
		{ { "run", "-de" }, "husk run: -e needs a value; 'husk run --help' tells more\n" },
		{ { "run", "--rm", "-Zd", "img" },
		  "husk run: unknown option -Z; 'husk run --help' lists them\n" },
		/* getopt's value of --name and --rm is no option by itself. */
		{ { "run", "--name=x", "-nd", "img" },
		  "husk run: unknown option -n; 'husk run --help' lists them\n" },
		{ { "run", "-dR", "img" },
		  "husk run: unknown option -R; 'husk run --help' lists them\n" },
		{ { "logs", "--follow", "web" },
		  "husk logs: unknown option --follow; 'husk logs --help' lists them\n" },
		{ { "images", "busybox", "--size" },
		  "husk images: unknown option --size; 'husk images --help' lists them\n" },
		{ { "images", "verify", "-q" },
		  "husk images verify: unknown option -q; 'husk images verify --help' lists "
		  "them\n" },
		{ { "run", "-e", "=x", "img" },
		  "husk run: -e =x: the name is missing\nTry 'husk run --help'.\n" },
		{ { "run", "--rm" }, "husk run: no image given\nTry 'husk run --help'.\n" },
		{ { "pull" }, "husk pull: no image given\nTry 'husk pull --help'.\n" },
		{ { "rm" }, "husk rm: no container given\nTry 'husk rm --help'.\n" },
		{ { "exec", "web" },
		  "husk exec: a container and a command are needed\nTry 'husk exec --help'.\n" },
		{ { "stop", "-t", "soon", "web" },
		  "husk stop: -t soon: seconds expected, at most 86400\nTry 'husk stop "
		  "--help'.\n" },
		{ { "inspect", "--type", "pod", "x" },
		  "husk inspect: --type pod: image or container expected\n"
		  "Try 'husk inspect --help'.\n" },
		{ { "check", "all" },
		  "husk check: unknown argument 'all'\nTry 'husk check --help'.\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		cleanup_free char *text = NULL;

		assert_int_equal(run(t[i].args, &text), 2);
		assert_string_equal(text, t[i].text);
	}
}

/* Every command names the option that it does not know. */
static void every_command(void **state)
{
	static const char *const commands[] = {
		"run",	"exec",	 "logs",   "ps",      "pods",  "stop",	"rm",
		"pull", "push",	 "images", "inspect", "tag",   "rmi",	"save",
		"load", "login", "logout", "df",      "prune", "check", "version",
	};

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const char *args[ARGS_MAX] = { commands[i], "--no-such" };
		cleanup_free char *text = NULL, *want = NULL;

		assert_int_equal(run(args, &text), 2);
		want = str_fmt("husk %s: unknown option --no-such; 'husk %s --help' lists them\n",
			       commands[i], commands[i]);
		assert_string_equal(text, want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages),
		cmocka_unit_test(every_command),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
