/*
 * Jobs: what runs for the callers of image.h until its `done` (pulls, pushes, logins, loads,
 * verifications), and what the jobs of one store have in common. The engine (image/engine.c) makes
 * and ends them. Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_JOBS_H
#define HUSK_IMAGE_JOB_JOBS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "image/job/fetcher.h"
#include "image/job/proc.h"

struct baseline;
struct loop;
struct store;

enum job_kind { JOB_PULL, JOB_PUSH, JOB_LOGIN, JOB_LOAD, JOB_VERIFY };

/* Embedded in its owner. */
struct job {
	struct jobs *jobs; /* NULL: not in the list */
	struct job *next;
	enum job_kind kind;
	/* Ends it: its `done` is called with why->code, and it is gone. */
	void (*stop)(struct job *j, const struct err *why);
	/* Set after job_add: bytes that its unfinished files have on the disk; 0 = it has none, or
	 * is not to be stopped for them. NULL = always so. */
	uint64_t (*taken)(const struct job *j);
};

struct jobs {
	struct loop *loop;   /* borrowed */
	struct store *store; /* borrowed */
	struct procs procs;
	struct fetcher_config fetcher_config;
	char *arch; /* of the images that are pulled, in OCI's words: "amd64" */
	unsigned max_layers_at_once, max_layers_in_all; /* of one pull; of all */
	struct job *list;				/* running */
	struct ev_timer room_timer;			/* see jobs_watch_room */
	bool room_short;
	struct baseline *baseline; /* NULL until a layer has come */
};

void job_add(struct jobs *js, struct job *j, enum job_kind kind,
	     void (*stop)(struct job *j, const struct err *why));
/* It has come to its end: exactly once, before its `done` is called, or with its cancellation. */
void job_remove(struct job *j);
/* The first one of that kind, and the next one of the same kind; NULL: there is none. */
struct job *job_first(const struct jobs *js, enum job_kind kind);
struct job *job_next(const struct job *j);
/*
 * From now on, as long as there are jobs that take room on the disk: what they write unpacks to
 * nobody knows how much, so the disk is looked at ten times a second. When the store's reserve
 * (store/space.h) is touched, what is kept for later goes first, and then the job that has taken
 * most, with -ENOSPC, until the reserve is free.
 */
void jobs_watch_room(struct jobs *js);
/* Stops all; a `done` may start no new one. */
void jobs_stop(struct jobs *js, const struct err *why);

#endif
