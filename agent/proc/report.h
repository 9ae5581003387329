/*
 * What the child between clone and exec tells the agent, over a SOCK_SEQPACKET pair that exec
 * closes: the terminal it made, or the stage that failed. One that is to wait says REPORT_READY
 * when only the exec is left, and goes on when it may. The end of the socket without REPORT_FAILED
 * = the process runs the program. The child is not trusted any more once it has entered the
 * container, so a report is bounded and its texts end inside. Leaf functions.
 */
#ifndef HUSK_AGENT_PROC_REPORT_H
#define HUSK_AGENT_PROC_REPORT_H

#include <stdint.h>

#include "base/compiler.h"

#define REPORT_STAGE_MAX 32

enum report_kind { REPORT_FAILED = 1, REPORT_TTY = 2, REPORT_READY = 3 };

struct report {
	uint32_t kind; /* 0 = none */
	int32_t error; /* errno > 0 */
	char stage[REPORT_STAGE_MAX];
	char text[500];
};

/* fd: the terminal's master with REPORT_TTY; -1 = none. */
int report_send(int sock, const struct report *rep, int fd) must_check;
/* 1 = a packet, 0 = the end, -EAGAIN; -EMSGSIZE: longer than a report, or with descriptors that
 * could not be taken. *ret_fd = -1 or owned by the caller. */
int report_receive(int sock, struct report *ret, int *ret_fd) must_check;
/* The agent's answer to REPORT_READY, and the child's wait for it. -EPIPE: the other end is
 * gone. */
int report_let_go(int sock) must_check;
int report_wait_go(int sock) must_check;

#endif
