/*
 * Load: the archive is spooled into a file without a name, a confined process tells what is in it,
 * and each image is pulled out of it as from a registry: same checks, same unpacking.
 */
#include "image/job/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/job/fetcher.h"
#include "image/job/jobs.h"
#include "image/job/pull.h"
#include "image/reference.h"
#include "image/store/gc.h"
#include "image/store/space.h"
#include "image/store/store.h"
#include "proto/image_worker.pb-c.h"

#define LIST_ID 1u

struct wanted {
	char digest[DIGEST_LEN + 1];
	char **names; /* in full */
};

struct image_load {
	struct job job;
	struct jobs *jobs;
	struct image_load_ops ops;
	void *arg;
	char *name;		      /* for an image that has none */
	int spool, expanded, archive; /* archive: whichever of the two it is, read-only */
	uint64_t size;
	struct fetcher *fetcher; /* while listing */
	struct wanted *images;
	size_t n_images, at;
	struct image_pull *pull;
	uint64_t room_until_ns; /* the reserve may be touched until then; 0 = it is not */
};

static void load_free(struct image_load *l)
{
	fetcher_free(l->fetcher);
	if (l->pull)
		image_pull_cancel(l->pull);
	fd_close(&l->spool);
	fd_close(&l->expanded);
	fd_close(&l->archive);
	for (size_t k = 0; k < l->n_images; k++)
		strv_free(l->images[k].names);
	free(l->images);
	free(l->name);
	free(l);
}

static void load_end(struct image_load *l, int code, const struct err *why)
{
	struct image_load_ops ops = l->ops;
	struct err err = { 0 };
	void *arg = l->arg;

	if (code < 0)
		err = *why;
	l->pull = NULL;
	job_remove(&l->job);
	load_free(l);
	ops.done(arg, code, &err);
}

static void load_on_stop(struct job *j, const struct err *why)
{
	struct image_load *l = container_of(j, struct image_load, job);

	if (l->pull)
		image_pull_cancel(l->pull);
	load_end(l, why->code, why);
}

/* While its bytes still come, its caller is told by image_load_put. */
static uint64_t load_taken(const struct job *j)
{
	const struct image_load *l = container_of(j, const struct image_load, job);

	return l->fetcher || l->pull ? space_of_fd(l->spool) + space_of_fd(l->expanded) : 0;
}

/* ---- one image after the other ---- */

static void load_next(struct image_load *l);

static void load_on_progress(void *arg, const struct image_progress *p)
{
	struct image_load *l = arg;
	const struct wanted *w = &l->images[l->at];

	if (l->ops.progress)
		l->ops.progress(l->arg, w->names[0] ? w->names[0] : w->digest, p);
}

static void load_on_loaded(void *arg, int code, const struct image_pull_result *res,
			   const struct err *why)
{
	struct image_load *l = arg;
	const struct wanted *w = &l->images[l->at];
	char id[DIGEST_LEN + 1];

	l->pull = NULL;
	if (code < 0) {
		load_end(l, code, why);
		return;
	}
	memcpy(id, res->id, sizeof(id));
	l->ops.loaded(l->arg, id, w->names);
	l->at++;
	load_next(l);
}

static void load_next(struct image_load *l)
{
	struct err err = { 0 };
	int r;

	if (l->at == l->n_images) {
		load_end(l, 0, NULL);
		return;
	}
	r = pull_archive(l->jobs, l->archive, l->images[l->at].digest, l->images[l->at].names,
			 load_on_progress, load_on_loaded, l, &l->pull, &err);
	if (r < 0)
		load_end(l, r, &err);
}

/* ---- what is in it ---- */

/* Who may read only cannot change what others rely on. */
static int reopen(int fd, int *ret, struct err *err)
{
	cleanup_free char *path = str_fmt("/proc/self/fd/%d", fd);

	if (!path)
		return err_nomem(err);
	*ret = open(path, O_RDONLY | O_CLOEXEC);
	return *ret < 0 ? err_errno(err, -errno, "open the archive again") : 0;
}

static int take_names(const Worker__Images__Image *i, struct wanted *w, struct err *err)
{
	w->names = calloc(i->n_names + 2, sizeof(*w->names));
	if (!w->names)
		return err_nomem(err);
	for (size_t k = 0; k < i->n_names; k++) {
		int r = reference_normalize(i->names[k], &w->names[k], err);

		if (r == 0 && strchr(w->names[k], '@'))
			r = err_set(err, -EINVAL, "'%.100s' has a digest", i->names[k]);
		if (r < 0)
			return err_wrap(err, r, "a name in the archive");
	}
	return 0;
}

static int take_images(struct image_load *l, const Worker__Images *list, struct err *err)
{
	int r = 0;

	if (list->n_images == 0)
		return err_set(err, -EPROTO, "the archive has no images");
	l->images = calloc(list->n_images, sizeof(*l->images));
	if (!l->images)
		return err_nomem(err);
	for (size_t k = 0; r == 0 && k < list->n_images; k++) {
		memcpy(l->images[k].digest, list->images[k]->digest, DIGEST_LEN + 1);
		l->n_images = k + 1;
		r = take_names(list->images[k], &l->images[k], err);
	}
	if (r < 0 || !l->name || l->images[0].names[0])
		return r;
	if (list->n_images > 1)
		return err_set(err, -EINVAL,
			       "the archive has %zu images, so one name is not enough",
			       list->n_images);
	l->images[0].names[0] = strdup(l->name);
	return l->images[0].names[0] ? 0 : err_nomem(err);
}

static void load_on_images(void *arg, uint32_t id, const Worker__Images *list)
{
	struct image_load *l = arg;
	struct err err = { 0 };
	int r = reopen(list->expanded ? l->expanded : l->spool, &l->archive, &err);

	if (r == 0)
		r = take_images(l, list, &err);
	fetcher_free(l->fetcher);
	l->fetcher = NULL;
	if (r < 0)
		load_end(l, r, &err);
	else
		load_next(l);
}

static void load_on_list_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	load_end(arg, code, err);
}

static const struct fetcher_ops list_ops = {
	.images = load_on_images,
	.error = load_on_list_error,
};

/* ---- the beginning ---- */

int load_new(struct jobs *js, const char *name, const struct image_load_ops *ops, void *arg,
	     struct image_load **ret, struct err *err)
{
	struct image_load *l = calloc(1, sizeof(*l));
	int r = 0;

	if (!l)
		return err_nomem(err);
	*l = (struct image_load){
		.jobs = js, .ops = *ops, .arg = arg, .spool = -1, .expanded = -1, .archive = -1
	};
	if (!str_empty(name))
		r = reference_normalize(name, &l->name, err);
	if (r == 0 && l->name && strchr(l->name, '@'))
		r = err_set(err, -EINVAL, "'%.100s': a name without a digest expected", name);
	if (r == 0)
		r = store_tmp_file(js->store, &l->spool, err);
	if (r == 0)
		r = store_tmp_file(js->store, &l->expanded, err);
	if (r < 0) {
		load_free(l);
		return r;
	}
	job_add(js, &l->job, JOB_LOAD, load_on_stop);
	l->job.taken = load_taken;
	jobs_watch_room(js);
	*ret = l;
	return 0;
}

int image_load_put(struct image_load *l, const void *data, size_t len, struct err *err)
{
	int r;

	if (len > IMAGE_MAX_LAYER - l->size)
		return err_set(err, -EFBIG, "the archive has more than %zu GiB",
			       IMAGE_MAX_LAYER / GIB);
	/* Meanwhile its bytes go where the reserve is. */
	r = gc_wait_room(l->jobs->store, 0, NS_PER_S, &l->room_until_ns, err);
	if (r < 0)
		return r;
	r = write_all(l->spool, data, len);
	l->size += len;
	return r < 0 ? err_errno(err, r, "keep the archive in %s/tmp", store_dir(l->jobs->store))
		     : 0;
}

int image_load_start(struct image_load *l, struct err *err)
{
	struct fetcher_options o = { .from_archive = true };
	cleanup_fd int fd = -1;
	int r = reopen(l->spool, &fd, err);

	o.archive_fd = fd;
	if (r == 0)
		r = fetcher_new(&l->jobs->procs, &o, &list_ops, l, &l->fetcher, err);
	return r < 0 ? r : fetcher_list(l->fetcher, LIST_ID, l->expanded, err);
}

void image_load_cancel(struct image_load *l)
{
	if (!l)
		return;
	job_remove(&l->job);
	load_free(l);
}
