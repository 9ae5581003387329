/*
 * A shim that pretends, on the loop of the huskd that is tested: the services that huskd calls, for
 * any number of pods and a few containers, without processes. It outlives the loop when it is
 * closed and opened again, as a shim outlives huskd.
 */
#ifndef HUSK_TEST_LIB_FAKE_SHIM_H
#define HUSK_TEST_LIB_FAKE_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"

#define FAKE_TASKS 16
#define FAKE_EXEC_OUTPUT_MAX 65536 /* a pipe */

struct fake_task {
	char id[65], exec_id[65]; /* "" = not used; exec_id "" = the container's first process */
	bool running, exited;
	uint32_t status;
	struct ttrpc_call *wait; /* to be answered with the exit */
};

struct fake_shim {
	/* The method that fails: "Start", "CreateSandbox", ... NULL = none. */
	const char *fails;
	enum rpc_code code;
	const char *text;
	uint32_t start_exit; /* goes along as a StartError; 0 = none */

	size_t exec_output; /* bytes that each command writes to each stream */
	bool exec_runs;	    /* until it is killed; else every command is `exit 3` */

	/* For huskd's `shim` setting. While DIR/says exists, `start` says that and fails. */
	char program[128];
	char address[128];
	struct ttrpc_server *server;
	struct fake_task tasks[FAKE_TASKS];
	struct ttrpc_call *sandbox_waits[FAKE_TASKS];
};

/* Makes the program in dir. */
void fake_shim_init(struct fake_shim *f, const char *dir);
void fake_shim_open(struct fake_shim *f, struct loop *loop);
/* Open calls of huskd end with a lost connection; tasks stay as they are. */
void fake_shim_close(struct fake_shim *f);

/* NULL: it has no such task. */
struct fake_task *fake_shim_task(struct fake_shim *f, const char *id, const char *exec_id);
/* The process ends; the open Wait is answered. */
void fake_shim_exit(struct fake_task *t, uint32_t status);

#endif
