/*
 * Starting another program: vfork-like clone with a pidfd, explicit descriptors, clean signal mask.
 * Any thread. Standard streams that are not given become /dev/null; every other descriptor
 * of the caller is closed in the child.
 */
#ifndef HUSK_BASE_SPAWN_H
#define HUSK_BASE_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define SPAWN_MAX_FDS 136

struct spawn {
	const char *path; /* absolute or relative path of the program; no search in $PATH */
	char *const *argv;
	char *const *envp; /* NULL = the caller's environment */
	const char *cwd;   /* NULL = the caller's */
	/* fds[i] becomes descriptor i of the child, -1 (only for i < 3) = /dev/null. At least 3 are
	 * used. */
	int fds[SPAWN_MAX_FDS];
	int n_fds;
	bool die_with_parent; /* PR_SET_PDEATHSIG SIGKILL; the calling thread must be the main one
			       */
	bool new_session;
};

/* A `struct spawn` with no descriptors. */
struct spawn spawn_of(const char *path, char *const *argv);
/* The child has called execve when this returns 0; a failed exec is returned as its -errno with
 * text. */
int spawn_run(const struct spawn *s, pid_t *ret_pid, int *ret_pidfd, struct err *err) must_check;

#endif
