/*
 * A client of the agent for tests: requests that wait for their answer, streams, exit events. The
 * agent may run in a VM (test_agent_vm.c) or in namespaces of this host (test_agent_host.c); the
 * scenarios (agent_scenarios.c) do not know which.
 */
#ifndef HUSK_TEST_LIB_AGENT_DRIVER_H
#define HUSK_TEST_LIB_AGENT_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"
#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"

#define DRIVER_EVENTS 4096
/* Sectors of the disks that every site has: two layers, and a scratch disk for each container. */
#define DISK_SECTORS (16u << 11) /* 16 MiB */
#define DISK_BASE 0u
#define DISK_TOP DISK_SECTORS
#define DISK_SCRATCH(n) ((uint64_t)(2 + (n)) * DISK_SECTORS)
#define SCRATCHES 40
/* The last ones are for tests that leave something behind; the others are used in turn. */
#define SCRATCHES_KEPT 4
/* In a VM only: more windows of the lower layer than a disk has partitions by default. */
#define DISK_MORE(n) ((uint64_t)(2 + SCRATCHES + 16 + (n)) * DISK_SECTORS)
#define MORE_DISKS 400
/* In a VM, where `hang` is not NULL: a scratch disk on a disk of the host that can hang. */
#define DISK_HUNG DISK_SCRATCH(SCRATCHES + 8)

struct driver {
	struct loop *loop;
	struct ttrpc_client *client;
	bool lost;
	/* A connection to the guest's stream port. */
	int (*connect)(struct driver *d);
	uint64_t next_stream;
	/* Of the last call. */
	struct err err;
	int code;
	enum rpc_code status;
	struct seen_event {
		uint64_t seq;
		bool oom, oom_killed;
		char id[130], exec_id[130];
		uint32_t status, pid;
	} events[DRIVER_EVENTS];
	size_t n_events;
	bool events_ended;
	bool in_vm;
	void (*hang)(bool on);
};

extern struct driver drv;

void driver_init(struct driver *d, int fd);
void driver_fini(struct driver *d);
/* The answer, to be freed with protobuf_c_message_free_unpacked; NULL: d->code, d->err. */
ProtobufCMessage *drive(struct driver *d, const char *method, const void *req);
/* The same where only the code matters. */
int drive_code(struct driver *d, const char *method, const void *req);
/* Two requests in one go, before either is answered. */
void drive_two(struct driver *d, const char *m1, const void *r1, int *ret1, const char *m2,
	       const void *r2, int *ret2);
/* A request whose answer is waited for later. */
struct drive_call *drive_begin(struct driver *d, const char *method, const void *req);
bool drive_answered(struct driver *d, const struct drive_call *c);
/* Waits for it. 0 or -errno, with d->err. */
int drive_end(struct driver *d, struct drive_call *c);
void driver_events(struct driver *d);
/* Waits for an exit event; fails the test after 60 s. */
const struct seen_event *drive_exit(struct driver *d, const char *id, const char *exec_id);
/* A stream: connection with its id sent. */
int drive_stream(struct driver *d, uint64_t id);
/* All until the end, as a string (at most 64 KiB are kept); *ret_total counts. Closes fd. */
char *drive_read_all(int fd, size_t *ret_total);
/* Until `want` is in what came; fails the test after 30 s. */
void drive_expect(int fd, const char *want);

/* Makes the two layers and the scratch template in `dir`. 0, or -ENOENT: a program is missing. */
int images_make(const char *dir);
void image_path(char *out, size_t size, const char *dir, const char *name);

/* agent_scenarios.c: run against `drv`, first. Failures. */
int agent_scenarios(const char *name);
/* agent_guest.c: what a guest's kernel gives; only in a VM. Failures. */
int agent_guest(const char *name);
/* agent_hostile.c: what hostile and unlucky containers do. Failures. */
int agent_hostile(const char *name);

#endif
