/* Shared by pull.c, pull_layers.c, pull_groups.c and pull_room.c. Loop thread only. */
#ifndef HUSK_IMAGE_JOB_PULL_INTERNAL_H
#define HUSK_IMAGE_JOB_PULL_INTERNAL_H

#include "base/loop.h"
#include "base/util.h"
#include "image/credentials.h"
#include "image/job/jobs.h"
#include "image/job/merge.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/store/blobs.h"

struct fetcher;
struct disk_sync;
struct unpacker;

enum pull_step { PULL_MANIFEST, PULL_PLATFORM, PULL_CONFIG, PULL_LAYERS, PULL_SYNC };

enum layer_state {
	LAYER_WAITING,	 /* nothing has been done */
	LAYER_FETCHING,	 /* its blob comes; unless it is part of a group it is unpacked meanwhile */
	LAYER_UNPACKING, /* its blob is there, its unpacker still works */
	LAYER_FETCHED,	 /* its blob is there, and its group waits for others or is being merged */
	LAYER_DONE,
	LAYER_SHARED, /* its disk was there already */
};

/* A disk of the image: of one layer, or of several, which are merged. */
struct pull_group {
	struct image_pull *pull;
	struct layer_group layers;
	struct merge *merge; /* while it works */
};

struct layer {
	struct image_pull *pull;
	struct pull_group *group;
	struct manifest_layer blob;
	const char *diff_id; /* in pull->config */
	enum layer_state state;
	uint32_t request; /* to the fetcher; 0 = none */
	uint64_t fetched;
	struct unpacker *unpacker;
	struct ingest *ingest; /* NULL while active: the blob is complete, from before */
	bool waits;	       /* in ingest_wait.h: another job or process has its file */
	unsigned restarts;
	bool fetch_ended, unpack_ended;
	int fetch_code, unpack_code;
	struct err fetch_err, unpack_err;
	char found[DIGEST_LEN + 1]; /* diff id as unpacked */
};

struct image_pull {
	struct job job;
	struct jobs *jobs;
	struct reference ref;
	bool from_archive;  /* ref: the digest only */
	char *const *names; /* ... and these, borrowed; else NULL */
	struct credentials credentials;
	image_progress_fn progress;
	image_done_fn done;
	void *arg;

	enum pull_step step;
	struct fetcher *fetcher;
	uint32_t last_request;	     /* number of the last request to the fetcher */
	uint32_t document_request;   /* the one that asked for this step's document */
	struct lease *lease;	     /* names the layers, blobs and documents it works with */
	char digest[DIGEST_LEN + 1]; /* of what the reference names */
	char choice[DIGEST_LEN + 1]; /* of the platform's manifest, "" without an index */
	struct manifest manifest;
	size_t manifest_size;
	void *config_bytes;
	size_t config_len;
	struct image_config config;
	struct layer *layers;
	size_t n_layers;
	struct pull_group groups[MERGE_MAX_DISKS];
	size_t n_groups;
	struct disk_sync *sync;	  /* while the finished image goes to the disk */
	struct merge *top_merge;  /* while it makes the disk on top */
	bool top_known;		  /* `top` is what it will be */
	char top[DIGEST_LEN + 1]; /* "" = none */

	struct ev_timer work_timer, progress_timer;
	bool changed; /* its progress is to be shown */
	bool *freed;  /* set by pull_free while the caller's progress function runs */
	uint64_t start_ns, fetched_ns;
	bool has_room;		/* for what its manifest says */
	uint64_t room_until_ns; /* how long it waits for it; 0 = not yet */
};

/* All running pulls: for (p = pull_first(js); p; p = pull_next(p)) */
static inline struct image_pull *pull_of(struct job *j)
{
	return j ? container_of(j, struct image_pull, job) : NULL;
}

static inline struct image_pull *pull_first(const struct jobs *js)
{
	return pull_of(job_first(js, JOB_PULL));
}

static inline struct image_pull *pull_next(const struct image_pull *p)
{
	return pull_of(job_next(&p->job));
}

/* Is it only fetched, to be unpacked with the others of its group? */
static inline bool layer_is_part(const struct layer *l)
{
	return l->group->layers.n > 1;
}

/* Does a process work on it? Those count for max_layers_at_once. */
static inline bool layer_is_active(const struct layer *l)
{
	return layer_is_part(l) ? l->state == LAYER_FETCHING : l->unpacker != NULL;
}

static inline bool layer_is_ready(const struct layer *l)
{
	return l->state == LAYER_DONE || l->state == LAYER_SHARED;
}

/* ---- pull.c ---- */

/* Ends the pull with a failure. */
void pull_fail(struct image_pull *p, int code, struct err *err);
/* Soon does what can be done next: starts layers, or makes the image visible. */
void pull_schedule(struct image_pull *p);
/* The same for all pulls: a layer has come, or room for one. */
void pull_schedule_all(const struct jobs *js);
/* Its progress is to be shown. */
void pull_note_change(struct image_pull *p);

/* ---- pull_layers.c ---- */

/* Starts the next thing that can be started, and comes back for more (pull_schedule): the loop
 * waits for a new process until it runs. *ret_all: all layers are ready. */
int pull_layers_start(struct image_pull *p, bool *ret_all, struct err *err) must_check;
/* What the fetcher says of the request; NULL: it is of no layer. */
struct layer *pull_layer_of(struct image_pull *p, uint32_t request);
void layer_on_progress(struct layer *l, uint64_t fetched);
void layer_on_fetched(struct layer *l);
void layer_on_fetch_error(struct layer *l, int code, bool again, const struct err *err);
void layer_fini(struct layer *l);
void layer_set_state(struct layer *l, enum layer_state to);

/* ---- pull_room.c ---- */

/* jobs.h */
uint64_t pull_taken(const struct job *j);
/* Is there room for the blobs that have to come? 1; 0: not yet, the pull is to look again after
 * *ret_ns; -ENOSPC. */
int pull_room_wait(struct image_pull *p, uint64_t *ret_ns, struct err *err) must_check;

/* ---- pull_groups.c ---- */

/* Which layers become one disk: each layer has its group, and the lease names the disks. */
int pull_groups_make(struct image_pull *p, struct err *err) must_check;
/* The same for the disks of several layers, unless something was started already. */
int pull_groups_start(struct image_pull *p, bool *ret_started, struct err *err) must_check;
/* All of them are there: makes the one on top, if the image needs one (job/merge.h). *ret_ready:
 * it is there, or there will be none; else it is being made. */
int pull_groups_top(struct image_pull *p, bool *ret_ready, struct err *err) must_check;

#endif
