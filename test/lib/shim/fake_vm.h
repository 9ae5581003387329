/*
 * A VM that pretends, inside the test's own program and on its loop: what shim/vm/vm.h promises, a
 * monitor behind a real control connection, an agent behind a real ttrpc channel. Link it with
 * husk_shim, whose vm.c is left out then. It answers as a good guest does, unless told otherwise;
 * what it was asked for is written down. A request that breaks a rule of the protocols fails the
 * test.
 */
#ifndef HUSK_TEST_LIB_SHIM_FAKE_VM_H
#define HUSK_TEST_LIB_SHIM_FAKE_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "shim/vm/vm.h"

struct fake_vm {
	/* Orders; zero = be good. */
	int start_error;    /* vm_start fails with it */
	const char *hold;   /* calls of this method of the agent are not answered */
	const char *refuse; /* calls of this method fail with -EINVAL, "refused" */
	bool refuse_map;    /* the monitor cannot map */
	bool refuse_unmap;
	bool keep_disks;  /* a guest that never says it let go of one */
	bool no_shutdown; /* the guest stays when it is asked to power off */
	bool no_channel;  /* the boot fails at once: the agent's end is closed before any call */
	/* What happened. */
	struct vm_config config; /* of the last vm_start; numbers only */
	int oom_score;		 /* of the VM */
	int console;		 /* where the guest's kernel writes; -1 = nowhere */
	unsigned pings, infos;	 /* asked of the agent, of the monitor; not in `asked` */
	unsigned clocks;	 /* SetClock came as often, not in `asked` */
	int64_t clock_ns;	 /* last */
	unsigned rooms;		 /* SetDiskRoom came as often, not in `asked` */
	bool disk_full;		 /* last */
	char asked[4096]; /* "CreateSandbox StartContainer(a) ExecProcess(a,x) ...", oldest first */
	unsigned mapped, unmapped, unmap_missed;
	char killed[200]; /* why of the last vm_kill; "-" = never */
	bool end_expected;
	uint64_t in, out, err; /* streams of the last process that came */
	char hosts[400], resolv_conf[400], hostname[70];
};

extern struct fake_vm fake;

void fake_vm_init(struct loop *l); /* everything as new; at most one VM at a time */
void fake_vm_fini(void);

/* Answers the oldest call that was held; the test fails when there is none. */
void fake_answer(void);
void fake_answer_error(int code, const char *msg);
void fake_answer_failure(const char *stage, int error); /* a start that failed in the guest */
unsigned fake_held(void);

void fake_exit(const char *id, const char *exec_id, uint32_t status, bool oom_killed);
void fake_oom(const char *id);
void fake_disk_room(bool full);	   /* the monitor says so */
void fake_lose_event(void);	   /* the next one leaves a gap behind */
void fake_monitor_deaf(bool deaf); /* it takes no request, those that come meanwhile wait */
void fake_hang_up(void);	   /* the agent's channel ends */
void fake_end(const char *why);	   /* the VM ends by itself */

/* The guest's end of a stream, -1 = there is none (any more). */
int fake_stream(uint64_t id);
void fake_stream_close(uint64_t id);

#endif
