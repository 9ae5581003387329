/*
 * What the worker's processes give up before they read what a stranger made. Each function returns
 * 0 or a negative errno; after a failure the caller must end.
 *
 * all: no core, no new privileges, limits of memory, CPU time and file size, user "nobody" without
 * capabilities when started by root, killed when the parent dies.
 *
 * fetch: no exec, no ptrace, no mounts, no kernel interfaces (seccomp deny-list); files can be read
 * below /etc, /usr, /lib and /run/systemd/resolve only, where the kernel has Landlock: the resolver
 * and TLS need them. It can open any network connection.
 *
 * decode, build, archive: seccomp allow-list: read, write and memory that cannot be executed; no
 * paths, no sockets, no processes.
 */
#ifndef HUSK_IMAGE_WORKER_CONFINE_H
#define HUSK_IMAGE_WORKER_CONFINE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct confine_limits {
	uint64_t memory; /* bytes of address space */
	uint64_t file;	 /* largest file it can write; 0 = none */
	uint64_t cpu_s;
	uint64_t data; /* bytes of private memory; 0 = no limit of its own */
};

int confine_common(const struct confine_limits *l, struct err *err) must_check;
int confine_fetch(struct err *err) must_check;
int confine_decode(struct err *err) must_check;
int confine_build(struct err *err) must_check;
int confine_archive(struct err *err) must_check;

#endif
