/*
 * A pod and a container as huskd knows them: what is recorded, and what is in flight. Below both
 * the database (statedb.h) and the lists (state.h), and knowing neither. Loop's thread.
 *
 * Objects are counted: an operation in flight holds a reference, so that a late answer finds its
 * object, and sees `removed` when it is in no list any more. What is in flight for an object (its
 * shim, timers, waiters) belongs to runtime/ and stands at the end of the structs.
 */
#ifndef HUSK_CRI_STORE_OBJECT_H
#define HUSK_CRI_STORE_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "base/waits.h"
#include "proto/cri.pb-c.h"

#define OBJECT_ID_LEN 64

struct huskd;
struct ttrpc_client;

/* Numbers are in the database: never change one. */
enum pod_state {
	POD_CREATING = 0, /* RunPodSandbox has not answered: in no list, removed after a restart */
	POD_READY = 1,
	POD_NOTREADY = 2,
};

enum container_state {
	CONTAINER_CREATING = 0, /* as POD_CREATING */
	CONTAINER_CREATED = 1,
	CONTAINER_RUNNING = 2,
	CONTAINER_EXITED = 3,
};

TAILQ_HEAD(container_list, container);
TAILQ_HEAD(pod_list, pod);

struct pod {
	TAILQ_ENTRY(pod) link;
	struct huskd *huskd;
	unsigned refs;
	bool removed;
	struct container_list containers;
	unsigned n_containers;

	/* In the database. */
	char id[OBJECT_ID_LEN + 1];
	enum pod_state state; /* pod_state_set */
	int64_t created_at;
	char *handler; /* as requested */
	char *address; /* of the shim's socket; "" until it is started */
	Cri__PodSandboxConfig *config;

	/* pod.c */
	struct ttrpc_client *shim;     /* NULL: no shim, or not connected */
	struct pod_teardown *teardown; /* in progress */
	struct pod_run *run;	       /* RunPodSandbox in progress */
	struct waits gone;	       /* RemovePodSandbox, and those who want the name */
	struct waits run_over;	       /* those who want the name while `run` is set */
	bool removing;
	char *death;	/* why its VM ended by itself; NULL = it did not, or not in our time */
	bool torn_down; /* nothing of the pod runs any more, and nothing is to be undone */
	uint64_t requested_ns, answered_ns; /* RunPodSandbox, CLOCK_MONOTONIC; 0 after a restart */
};

struct container {
	TAILQ_ENTRY(container) link; /* in its pod */
	struct pod *pod; /* valid while !removed, or while a reference of the pod is held */
	unsigned refs;
	bool removed;

	/* In the database. */
	char id[OBJECT_ID_LEN + 1];
	enum container_state state;		     /* container_state_set */
	int64_t created_at, started_at, finished_at; /* ns since the epoch, 0 = not yet */
	int32_t exit_code;
	char *reason, *message; /* never NULL */
	char *image_id;
	char *image_name; /* a tag if it has one, otherwise as requested */
	char *image_ref;  /* a digest reference if it has one, otherwise the id */
	int stop_signal;  /* Linux number */
	bool stop_chosen; /* not just the default */
	Cri__ContainerConfig *config;

	/* container.c */
	bool starting;
	bool removing;
	bool killed; /* SIGKILL was sent */
	bool term_sent;
	uint64_t kill_at_ns; /* when SIGKILL follows the stop signal; 0 = no stop in progress */
	struct ev_timer stop_timer;
	struct waits started; /* the start has come to an end */
	struct waits exited;  /* state is EXITED, or it did not stop */
	struct waits gone;    /* RemoveContainer */
};

/*
 * The only way to change a state. What object.c does not list as an arrow is a bug of ours, and
 * ends huskd: code that acts on a late answer looks at the state first.
 */
void pod_state_set(struct pod *p, enum pod_state to);
void container_state_set(struct container *c, enum container_state to);
/* Is there such an arrow? Any numbers. */
bool pod_state_may(enum pod_state from, enum pod_state to);
bool container_state_may(enum container_state from, enum container_state to);

/* Empty, with one reference, in no list, in state CREATING. NULL without memory. */
struct pod *pod_new(void);
struct container *container_new(void);

struct pod *pod_ref(struct pod *p);
void pod_unref(struct pod *p); /* NULL is fine */
/* A reference of a container holds its pod, too. */
struct container *container_ref(struct container *c);
void container_unref(struct container *c); /* NULL is fine */

#endif
