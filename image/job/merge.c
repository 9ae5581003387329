#include "image/job/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/limits.h"
#include "image/manifest.h"
#include "image/job/baseline.h"
#include "image/job/jobs.h"
#include "image/job/unpacker.h"
#include "image/store/blobs.h"
#include "image/store/layers.h"
#include "image/store/space.h"
#include "image/store/store.h"

struct merge {
	struct jobs *jobs;
	struct unpacker *unpacker;
	char id[DIGEST_LEN + 1];
	bool top, empty;
	merge_done_fn done;
	void *arg;
};

/* The id of a disk that is made of these: what it is, and their ids, are all of it. */
static int made_id(const char *what, const char *const *ids, size_t n, char ret[DIGEST_LEN + 1])
{
	struct buf b;
	int r;

	buf_init(&b, (IMAGE_MAX_LAYERS + 1) * (DIGEST_LEN + 1));
	r = buf_printf(&b, "%s\n", what);
	for (size_t k = 0; r == 0 && k < n; k++)
		r = buf_printf(&b, "%s\n", ids[k]);
	if (r == 0)
		r = digest_of(buf_data(&b), buf_len(&b), ret);
	buf_fini(&b);
	return r;
}

/* The two neighbours that are smallest together become one, until there are few enough; among
 * equals the lowest. */
int merge_plan(const struct manifest_layer *layers, char *const *diff_ids, size_t n,
	       struct layer_group groups[MERGE_MAX_DISKS], size_t *ret_n)
{
	struct {
		size_t first, n;
		uint64_t size;
	} v[IMAGE_MAX_LAYERS];
	size_t left = n;

	if (n > IMAGE_MAX_LAYERS)
		return -EFBIG;
	for (size_t k = 0; k < n; k++) {
		v[k].first = k;
		v[k].n = 1;
		v[k].size = layers[k].size;
	}
	for (; left > MERGE_MAX_DISKS; left--) {
		size_t best = 0;

		for (size_t k = 1; k + 1 < left; k++)
			if (v[k].size + v[k + 1].size < v[best].size + v[best + 1].size)
				best = k;
		v[best].n += v[best + 1].n;
		v[best].size += v[best + 1].size;
		memmove(&v[best + 1], &v[best + 2], (left - best - 2) * sizeof(v[0]));
	}
	for (size_t k = 0; k < left; k++) {
		groups[k].first = v[k].first;
		groups[k].n = v[k].n;
		if (v[k].n == 1) {
			memcpy(groups[k].id, diff_ids[v[k].first], DIGEST_LEN + 1);
		} else {
			int r = made_id(v[k].first ? "husk merged layers 2 upper"
						   : "husk merged layers 2 bottom",
					(const char *const *)diff_ids + v[k].first, v[k].n,
					groups[k].id);

			if (r < 0)
				return r;
		}
	}
	*ret_n = left;
	return 0;
}

static void merge_on_unpacked(void *arg, int code, const char *id, const struct err *err)
{
	struct merge *m = arg;
	struct err copy = *err;

	m->empty = code == 0 && m->top && !unpacker_entries(m->unpacker);
	if (code == 0 && !m->empty)
		code = layers_add(m->jobs->store, m->id, unpacker_path(m->unpacker),
				  unpacker_facts(m->unpacker), &copy);
	if (code == 0 && !m->empty)
		baseline_schedule(m->jobs);
	if (code < 0 && unpacker_reserve_reached(m->unpacker))
		(void)!space_refuse(m->jobs->store, 0, &copy);
	m->done(m->arg, code, &copy);
}

int merge_start(struct jobs *js, const struct layer_group *group,
		const struct manifest_layer *layers, char *const *diff_ids, merge_done_fn done,
		void *arg, struct merge **ret, struct err *err)
{
	struct unpacker_layer l[IMAGE_MAX_LAYERS];
	struct merge *m = calloc(1, sizeof(*m));
	size_t opened = 0;
	cleanup_free char *path = store_tmp_path(js->store, ".ext4");
	int r = 0;

	if (!m || !path) {
		free(m);
		return err_nomem(err);
	}
	m->jobs = js;
	m->done = done;
	m->arg = arg;
	memcpy(m->id, group->id, sizeof(m->id));
	for (; r == 0 && opened < group->n; opened += r == 0) {
		const struct manifest_layer *from = &layers[group->first + opened];

		l[opened] = (struct unpacker_layer){ .compression = from->compression,
						     .diff_id = diff_ids[group->first + opened] };
		r = blob_open(js->store, from->digest, &l[opened].fd, NULL, err);
	}
	if (r == 0)
		r = unpacker_new_merged(&js->procs, path, m->id, l, group->n, group->first == 0,
					space_reserve(js->store), merge_on_unpacked, m,
					&m->unpacker, err);
	for (size_t k = 0; k < opened; k++)
		fd_close(&l[k].fd);
	if (r < 0) {
		free(m);
		return r;
	}
	*ret = m;
	return 0;
}

const char *merge_path(const struct merge *m)
{
	return unpacker_path(m->unpacker);
}

/* ---- the disk on top ---- */

int merge_top_id(const char *const *disks, size_t n, char ret[DIGEST_LEN + 1])
{
	return made_id("husk inherited attributes 1", disks, n, ret);
}

int merge_top_start(struct jobs *js, const char *const *disks, size_t n, const char *id,
		    merge_done_fn done, void *arg, struct merge **ret, struct err *err)
{
	struct merge *m = calloc(1, sizeof(*m));
	cleanup_free char *path = store_tmp_path(js->store, ".ext4");
	int fds[MERGE_MAX_DISKS];
	size_t opened = 0;
	int r = 0;

	if (!m || !path) {
		free(m);
		return err_nomem(err);
	}
	m->jobs = js;
	m->top = true;
	m->done = done;
	m->arg = arg;
	memcpy(m->id, id, sizeof(m->id));
	for (; r == 0 && opened < n; opened += r == 0)
		r = layers_open(js->store, disks[opened], &fds[opened], err);
	if (r == 0)
		r = unpacker_new_inherited(&js->procs, path, m->id, fds, n, merge_on_unpacked, m,
					   &m->unpacker, err);
	for (size_t k = 0; k < opened; k++)
		fd_close(&fds[k]);
	if (r < 0) {
		free(m);
		return r;
	}
	*ret = m;
	return 0;
}

bool merge_is_empty(const struct merge *m)
{
	return m->empty;
}

void merge_free(struct merge *m)
{
	if (!m)
		return;
	unpacker_free(m->unpacker);
	free(m);
}
