/*
 * A client of the shim for tests: starts it as huskd does, makes calls and waits for their answers,
 * writes bundles and reads FIFOs. One loop; a call runs it until the answer is there. Whatever goes
 * wrong ends the program with a message: a test has nothing to clean up but its directory.
 */
#ifndef HUSK_TEST_LIB_SHIM_SHIM_CLIENT_H
#define HUSK_TEST_LIB_SHIM_SHIM_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "proto/shim.pb-c.h"

struct pod {
	struct loop *loop;
	struct ttrpc_client *client;
	char *dir; /* of everything of this pod */
	char *id, *bundle, *address;
	pid_t shim, vmm, qemu;
};

/* An answer. `resp` is the packed message's copy; valid until the next call. */
struct answer {
	bool done;
	int code;
	enum rpc_code status;
	char msg[500];
	Shim__StartError *start_error; /* NULL = none */
	ProtobufCMessage *resp;
};

/* Output of a FIFO, collected on the loop. */
struct sink {
	struct ev_io io;
	char *path;
	int fd;
	bool eof;
	bool paused;
	size_t n;
	uint64_t sum;	 /* of bytes */
	char text[4096]; /* the first */
};

void fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define check(x) ((x) ? (void)0 : fatal("%s:%d: %s", __FILE__, __LINE__, #x))

/* Directory for a test, removed first. The caller frees. */
char *test_dir(const char *name);
/* `start` of the program at `shim`; options as in shim.proto. */
void pod_start(struct pod *p, const char *shim, const char *dir, const char *id,
	       const Shim__Options *opts);
void pod_connect(struct pod *p); /* once more, e.g. as a huskd that was started again */
void pod_disconnect(struct pod *p);
void pod_fini(struct pod *p);
void pod_read_pids(struct pod *p);
/* True when it is gone (or a zombie), within timeout_ms. */
bool process_gone(pid_t pid, int timeout_ms);

/* Service names are the generated descriptors. `a` must be zeroed or used before. */
void call(struct pod *p, const ProtobufCServiceDescriptor *svc, const char *method,
	  const ProtobufCMessage *req, struct answer *a);
/* Without waiting; answer_wait waits. */
void call_start(struct pod *p, const ProtobufCServiceDescriptor *svc, const char *method,
		const ProtobufCMessage *req, struct answer *a);
bool answer_wait(struct pod *p, struct answer *a, int timeout_ms);
void answer_clear(struct answer *a);

/* The calls, short. They return the code (0 or -errno). */
int sandbox_call(struct pod *p, const char *method, struct answer *a);
int create_sandbox(struct pod *p, const char *hostname);
int create_sandbox_in(struct pod *p, const char *hostname,
		      const char *netns); /* a path, "" = none */
int task_start(struct pod *p, const char *id, const char *exec_id, struct answer *a);
int task_kill(struct pod *p, const char *id, const char *exec_id, uint32_t sig);
int task_delete(struct pod *p, const char *id, const char *exec_id);
void task_wait_start(struct pod *p, const char *id, const char *exec_id, struct answer *a);
uint32_t task_wait(struct pod *p, const char *id, const char *exec_id); /* exit status */
int task_state(struct pod *p, const char *id, const char *exec_id);	/* of the enum; -errno */
int task_exec(struct pod *p, const char *id, const char *exec_id, bool tty, const char *in,
	      const char *out, const char *err, const char *args_json);
int task_close_io(struct pod *p, const char *id, const char *exec_id);
int task_resize(struct pod *p, const char *id, const char *exec_id, uint32_t w, uint32_t h);

/* A bundle with a config.json made of `args` (a JSON list); NULL uses `config` as it is. */
char *make_bundle(struct pod *p, const char *id, const char *args, const char *config);
/* Create with the layers and the scratch file (NULL = none). */
int task_create(struct pod *p, const char *id, const char *bundle, const char *out, const char *err,
		const char *const *layers, const char *scratch, struct answer *a);

void sink_open(struct pod *p, struct sink *s, const char *path); /* makes the FIFO */
bool sink_wait_eof(struct pod *p, struct sink *s, int timeout_ms);
void sink_close(struct sink *s);
void run_for(struct pod *p, int ms);
char *read_all(const char *path); /* "" when it is not there; the caller frees */

#endif
