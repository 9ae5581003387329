/* Proves that a broken invariant ends the process: check() of base/check.h. */
#ifndef HUSK_TEST_LIB_ABORTS_H
#define HUSK_TEST_LIB_ABORTS_H

#include "test/lib/unit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

/* Runs fn(arg) in a child, which must end by abort() after logging a text that contains `why`. */
static inline void assert_aborts(void (*fn)(void *arg), void *arg, const char *why)
{
	const struct rlimit no_core = { 0, 0 };
	char text[4096];
	size_t have = 0;
	int p[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGABRT, SIG_DFL);
		log_init("child", p[1], LOG_ERROR, false);
		fn(arg);
		_exit(0);
	}
	(void)close(p[1]);
	while ((n = read(p[0], text + have, sizeof(text) - 1 - have)) > 0)
		have += (size_t)n;
	text[have] = '\0';
	(void)close(p[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_text(text, why);
}

#endif
