/*
 * Small things about processes, our own and our children: signals by pidfd, the limit of open
 * files, the standard streams, where the programs of an installation are. Leaf functions, any
 * thread.
 */
#ifndef HUSK_BASE_PROCESS_H
#define HUSK_BASE_PROCESS_H

#include <sys/resource.h>

#include "base/compiler.h"
#include "base/err.h"

/* Never hits a process that has taken over the number. -ESRCH: it has been reaped, or pidfd is -1;
 * -errno. Often there is nothing to be done about a failure, so the result may be ignored. */
int pidfd_signal(int pidfd, int signo);

/* Raises the soft limit of open files to `want` (RLIM_INFINITY: all that is allowed), or to the
 * hard limit when that is less. Never lowers it. -errno of the system call. */
int raise_nofile(rlim_t want) must_check;

/* 0, 1 and 2 that whoever started us left closed become /dev/null: what is opened next would get
 * their numbers, and with them all that is meant for the standard streams. First of all in main;
 * what libraries open before it stays (log.c knows). */
int open_std_fds(void) must_check;

/* A file of this installation: `given` when it is neither NULL nor "", else `name` below the
 * directory of the running program ("husk-vmm", "../share/husk/vmlinux"). The caller frees. */
int program_path(const char *given, const char *name, char **ret, struct err *err) must_check;

#endif
