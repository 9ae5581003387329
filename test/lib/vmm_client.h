/* A husk-vmm started by a test, its control socket, and the agent channel of vmm_guest. */
#ifndef HUSK_TEST_LIB_VMM_CLIENT_H
#define HUSK_TEST_LIB_VMM_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/vmm.pb-c.h"

struct vmm_client {
	pid_t pid;
	int pidfd;
	int control;
	int agent;   /* our end of the agent channel */
	int console; /* read end of the console's pipe, -1 = none */
	uint64_t next_id;
	char message[512]; /* the text of the last answer, "" = it was fine */
	Vmm__Ended *ended; /* owned; NULL = not yet */
	bool connected;
	Vmm__AgentConnected times;
};

/* All of these fail the test (cmocka) when they cannot do their work. */
void vmm_start(struct vmm_client *c, const char *backend, const char *kernel,
	       const char *initramfs);
/* Sends a request with descriptors, returns the error of its answer (0 = fine). Events that come
 * before are noted. `info`, if given, gets the InfoReply; free it with free_unpacked. */
int vmm_call(struct vmm_client *c, Vmm__Request *q, const int *fds, unsigned n_fds,
	     Vmm__Packet **ret_answer);
int vmm_boot(struct vmm_client *c, unsigned vcpus, unsigned memory_mib, const char *cmdline,
	     bool console);
int vmm_map(struct vmm_client *c, uint64_t first, uint64_t sectors, int fd, bool readonly);
int vmm_unmap(struct vmm_client *c, uint64_t first);
/* Our end of a new connection in *ret_fd. */
int vmm_connect(struct vmm_client *c, uint32_t port, int *ret_fd);
int vmm_attach_tap(struct vmm_client *c, int tap);
int vmm_detach_tap(struct vmm_client *c);
pid_t vmm_qemu_pid(struct vmm_client *c);
/* Waits for events; fails the test after `seconds`. */
void vmm_wait_connected(struct vmm_client *c, int seconds);
void vmm_wait_ended(struct vmm_client *c, int seconds);
/* A command of vmm_guest. 0 and what follows "ok " in out (may be NULL), or -errno. */
int vmm_guest(struct vmm_client *c, char *out, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Closes the control socket, waits for the monitor. Its exit status. */
int vmm_stop(struct vmm_client *c);

#endif
