/* Shared by pull.c and pull_groups.c. */
#ifndef HUSK_IMAGE_JOB_PULL_INTERNAL_H
#define HUSK_IMAGE_JOB_PULL_INTERNAL_H

#include "base/loop.h"
#include "image/credentials.h"
#include "image/manifest.h"
#include "image/job/merge.h"
#include "image/store/store.h"

struct fetcher;
struct unpacker;

enum pull_step { PULL_RESOLVE, PULL_PLATFORM, PULL_CONFIG, PULL_LAYERS };

/* A disk of the image: of one layer, or of several. */
struct run {
	struct image_pull *pull;
	struct merge_run what;
	struct merge *merge;
};

struct layer {
	struct image_pull *pull;
	struct run *run;
	struct manifest_layer what;
	const char *diff_id; /* in pull->config */
	enum image_layer_state state;
	uint64_t fetched;
	struct unpacker *unpacker;
	struct ingest *ingest; /* NULL while active: the blob is complete, from before */
	unsigned restarts;
	bool fetch_ended, unpack_ended;
	int fetch_code, unpack_code;
	struct err fetch_err, unpack_err;
	char found[DIGEST_LEN + 1]; /* diff id as unpacked */
};

struct image_pull {
	struct image_store *s;
	struct image_pull *next;
	struct reference ref;
	bool from_archive; /* ref: the digest only */
	struct credentials credentials;
	image_progress_fn progress;
	image_done_fn done;
	void *arg;

	enum pull_step step;
	struct fetcher *fetcher;
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
	struct run runs[MERGE_MAX_DISKS];
	size_t n_runs;

	struct ev_timer kick_timer, busy_timer, progress_timer;
	bool changed;
	bool *freed; /* set by pull_free while the caller's progress function runs */
	uint64_t start_ns, fetched_ns;
};

/* Is it only fetched, to be unpacked with others? */
static inline bool is_part(const struct layer *l)
{
	return l->run->what.n > 1;
}

static inline bool is_active(const struct layer *l)
{
	return is_part(l) ? l->state == IMAGE_LAYER_FETCHING : l->unpacker != NULL;
}

static inline bool is_ready(const struct layer *l)
{
	return l->state == IMAGE_LAYER_DONE || l->state == IMAGE_LAYER_SHARED;
}

/* Ends the pull with a failure. */
void pull_fail(struct image_pull *p, int code, struct err *err);
/* Looks soon at what can be done next. */
void pull_kick(struct image_pull *p);
/* Its progress is to be shown. */
void pull_note_change(struct image_pull *p);

/* Which layers become one disk: each layer has its run, and the lease names them. */
int runs_make(struct image_pull *p, struct err *err) must_check;
/* Starts what can be started of the disks of several layers. */
int runs_go_on(struct image_pull *p, struct err *err) must_check;

#endif
