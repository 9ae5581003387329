/*
 * Starting another program: vfork-like clone with a pidfd, explicit descriptors, clean signal mask.
 * Any thread. Standard streams that are not given become /dev/null; every other descriptor
 * of the caller is closed in the child.
 */
#ifndef HUSK_BASE_SPAWN_H
#define HUSK_BASE_SPAWN_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define SPAWN_MAX_FDS 136

/* Values of oom_score_adj. huskd has -999 from its unit, and nothing else may come by it.
 * A shim: as containerd gives its own. Below every value that kubelet gives to pods (-997 for
 * guaranteed ones), as the death of a shim is the death of its pod and frees some MiB only; above
 * the daemons that run the host: kubelet and runtime (-999), sshd (-1000). */
#define OOM_SCORE_SHIM (-998)
/* What can be done again: the first to go. */
#define OOM_SCORE_WORKER 500
/* A pod's virtual machine, where nobody says otherwise: as any process. */
#define OOM_SCORE_POD 0
/* The caller's own, where that is what the child is meant to have. */
#define OOM_SCORE_KEEP INT_MIN

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
	/* -1000 to 1000, or OOM_SCORE_KEEP. Less than the caller's needs CAP_SYS_RESOURCE; where
	 * the kernel refuses it, the child starts with the caller's. */
	int oom_score_adj;
};

/* A `struct spawn` with no descriptors. The score is an argument, as nobody may forget it. */
struct spawn spawn_of(const char *path, char *const *argv, int oom_score_adj);
/* The child has called execve when this returns 0; a failed exec is returned as its -errno with
 * text. */
int spawn_run(const struct spawn *s, pid_t *ret_pid, int *ret_pidfd, struct err *err) must_check;

#endif
