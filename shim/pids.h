/*
 * The record of a pod's processes on the host, kept in the bundle for `delete`, which must end what
 * a killed shim may have left: "<name> <pid> <start time>" a line. The start time (field 22 of
 * /proc/PID/stat) tells a process from a later one with its number. Any thread.
 */
#ifndef HUSK_SHIM_PIDS_H
#define HUSK_SHIM_PIDS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define PIDS_FILE "husk.pids"
#define PIDS_MAX 8

struct pid_entry {
	const char *name; /* letters only */
	pid_t pid;	  /* 0 = none, left out */
};

/* Writes the record; processes that are gone already are left out. */
int pids_write(const char *bundle, const struct pid_entry *list, size_t n,
	       struct err *err) must_check;
/* SIGKILLs every recorded process that is still the same one, and waits until it is gone, all in
 * all at most timeout_ms. How many were alive, or -errno (-ETIMEDOUT: some still are). No file = 0.
 */
int pids_kill(const char *bundle, int timeout_ms, struct err *err) must_check;

#endif
