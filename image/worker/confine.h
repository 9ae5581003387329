/*
 * What the worker's processes give up before they read what a stranger made. Each function returns
 * 0 or a negative errno; after a failure the caller must end.
 *
 * all: no core, no new privileges, limits of memory, CPU time and file size; when started by root,
 * a user without capabilities, of its own where one was given; killed when the parent dies.
 *
 * fetch: a seccomp allow-list: TCP and UDP connections to anywhere, files to be read, threads;
 * memory that can be executed, other processes, signals, other sockets and anything else of the
 * kernel are not on it. Where the kernel has Landlock, files can be read below /etc, /usr, /lib and
 * where /etc/resolv.conf may lead in /run only (the resolver and TLS need them), no port can be
 * listened on and no signal leaves the process.
 *
 * decode, build, archive: seccomp allow-list: read, write and memory that cannot be executed; no
 * paths, no sockets, no processes.
 */
#ifndef HUSK_IMAGE_WORKER_CONFINE_H
#define HUSK_IMAGE_WORKER_CONFINE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

struct confine_limits {
	uint64_t memory; /* bytes of address space */
	uint64_t file;	 /* largest file it can write; 0 = none */
	uint64_t cpu_s;
	uint64_t data;	  /* bytes of private memory; 0 = no limit of its own */
	uint64_t threads; /* of the uid, when it is its own */
};

/* Before confine_common: a uid that no other process has; 0 = "nobody". For a process of root only,
 * others stay who they are. */
void confine_set_uid(uid_t uid);
/* Before the confinement, as root: loads the resolver's modules of /etc/nsswitch.conf. */
void confine_fetch_prepare(void);
/* The version of the kernel's Landlock; 0: it has none. Any process. */
int confine_landlock_abi(void);
int confine_common(const struct confine_limits *l, struct err *err) must_check;
int confine_fetch(struct err *err) must_check;
int confine_decode(struct err *err) must_check;
int confine_build(struct err *err) must_check;
int confine_archive(struct err *err) must_check;

#endif
