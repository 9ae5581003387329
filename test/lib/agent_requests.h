/*
 * Requests to an agent as a shim would send them, and short ways to send them to `drv`, failing the
 * test when they fail. One thread.
 */
#ifndef HUSK_TEST_LIB_AGENT_REQUESTS_H
#define HUSK_TEST_LIB_AGENT_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"
#include "test/lib/agent_driver.h"

#define ALL_CAPS ((2ull << 40) - 1)
/* containerd's default set. */
#define DEFAULT_CAPS 0xa80425fbull

struct setup {
	char id[32];
	Agent__CreateContainerRequest req;
	Agent__Rootfs rootfs;
	Agent__Disk base, top, scratch;
	Agent__Disk *lower[2];
	Agent__Process process;
	Agent__User user;
	Agent__Stdio stdio;
	Agent__Capabilities caps;
	Agent__Mount mount[10];
	Agent__Mount *mounts[10];
	char *args[4];
	char *masked[3], *readonly[2];
};

struct exec {
	Agent__ExecProcessRequest req;
	Agent__Process process;
	Agent__User user;
	Agent__Stdio stdio;
	Agent__Capabilities caps;
	char *args[4];
};

/* Elsewhere the test is skipped; `why` is printed. */
void only_in_vm(const char *why);

/* A container as the shim would ask for it: two layers, a scratch disk, OCI's default mounts. */
void request_container(struct setup *s, const char *script);
void request_exec(struct exec *e, const char *id, const char *exec_id, const char *script);
void request_mount(struct setup *s, const char *type, const char *dest, const char *source,
		   char **options, size_t n);
void request_disk(Agent__Disk *d, uint64_t first, bool readonly);

void do_create(struct setup *s);
Agent__StartContainerResponse *do_start(const char *id); /* freed by start_free */
void start_free(Agent__StartContainerResponse *r);
void do_start_ok(const char *id);
void do_exec_ok(struct exec *e);
/* One more command in a container: its standard output, valid until the next. */
char *exec_script(const char *id, const char *exec_id, const char *script);
void do_remove(const char *id);
/* The processes of a container, as ListProcesses has them. */
size_t count_pids(const char *id);
/* The loop answers in time. */
void assert_pings(uint64_t max_ms);
/* 0 or -errno. */
int do_kill(const char *id, const char *exec_id, int sig, bool all);
/* Runs a prepared container to its end; its output (stdout and stderr in one) stays valid until the
 * next. */
char *run_to_end(struct setup *s, unsigned *ret_status);
char *run_script(const char *script, unsigned *ret_status);
/* A container that does nothing until it is killed. */
void start_idle(struct setup *s);
void stop_idle(struct setup *s);

#endif
