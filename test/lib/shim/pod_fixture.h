/*
 * A pod for tests of containers: the sandbox of sandbox_fixture.h, READY, its containers, and
 * requests to them in short. Whatever goes wrong in here fails the test.
 */
#ifndef HUSK_TEST_LIB_SHIM_POD_FIXTURE_H
#define HUSK_TEST_LIB_SHIM_POD_FIXTURE_H

#include "shim/pod/container.h"
#include "test/lib/shim/sandbox_fixture.h"

extern struct containers all;
extern char *scratch;		/* a file for a writable disk */
extern const char *trouble_due; /* what sandbox_ops.trouble may say; NULL = nothing */
extern char heard
	[2000]; /* what the owner was told, oldest first: "created(a) started(a) exited(a,x)" */

int pod_set_up_files(void **state); /* for the group of tests */
int pod_tear_down_files(void **state);
int pod_set_up(void **state); /* for each test */
int pod_tear_down(void **state);

/* A request's one answer. */
struct answer {
	int n; /* how many came */
	int code;
	struct err err;
	uint32_t exit_code; /* of a StartError, 0 = none */
	uint32_t exit_status;
};

/* Of the last request, and of one that waits; not on a test's stack, where they could come after a
 * test that failed. */
extern struct answer a, w;

void turn(void); /* everything that can happen without time passing */
bool answered(struct answer *to, uint64_t ms);
void answer_on_wait(void *arg, int code, const struct err *err); /* a wait_fn; arg: the answer */

struct how {
	const char *out;     /* URI of stdout and stderr; "" = /dev/null */
	const char *scratch; /* NULL = none */
	bool shared_pids;
	int oom_score;
};
extern const struct how plain;

/* Their answer is in `a`, if it came; _ok: it came, and was good. */
void create_as(const char *id, const struct how *how);
void create_ok(const char *id, const struct how *how);
void start_proc(const char *id, const char *exec_id);
void start_ok(const char *id, const char *exec_id);
void delete_container(const char *id);
void delete_ok(const char *id);
int add_exec(const char *id, const char *exec_id);
struct proc *proc_of(const char *id, const char *exec_id); /* must be there */

#endif
