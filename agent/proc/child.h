/*
 * The child between clone and exec. It was born in the container's cgroup and pid namespace and
 * does the rest itself, stage by stage; every path of the image is resolved here, never by PID 1.
 * What fails is reported as (stage, errno, text) over a socket that exec closes.
 */
#ifndef HUSK_AGENT_PROC_CHILD_H
#define HUSK_AGENT_PROC_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"
#include "base/compiler.h"
#include "base/err.h"

#define CHILD_STAGE_MAX 32

/* One packet of the report socket. The terminal's master comes as SCM_RIGHTS with REPORT_TTY. The
 * end of the socket without REPORT_FAILED = the process runs the program. */
enum report_kind { REPORT_FAILED = 1, REPORT_TTY = 2 };

struct report {
	uint32_t kind;
	int32_t error; /* errno > 0 */
	char stage[CHILD_STAGE_MAX];
	char text[500];
};

struct child_job {
	const char *run_dir;
	const Agent__CreateContainerRequest *container;
	const Agent__Process *process;
	int init_pidfd; /* exec: of the container's first process; -1 = this is the first process */
	int rootfs;	/* first process: the detached mount */
	int report;	/* socket, SOCK_SEQPACKET */
	int std[3];	/* -1 = /dev/null; all -1 with a terminal */
};

noreturn_fn void child_run(const struct child_job *job);
/* Sends a descriptor with a report. */
int report_send(int sock, const struct report *rep, int fd) must_check;
/* 1 = a packet, 0 = the end, -EAGAIN. *ret_fd = -1 or owned by the caller. */
int report_receive(int sock, struct report *ret, int *ret_fd) must_check;

#endif
