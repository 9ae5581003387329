#include "image/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/util.h"
#include "image/failure.h"
#include "image/job/baseline.h"
#include "image/job/load.h"
#include "image/job/login.h"
#include "image/job/pull.h"
#include "image/job/push.h"
#include "image/job/save.h"
#include "image/job/verify.h"
#include "image/reference.h"
#include "image/store/db.h"
#include "image/store/disk.h"
#include "image/store/gc.h"
#include "image/store/holds.h"
#include "image/store/images.h"
#include "image/store/layers.h"
#include "image/store/names.h"
#include "image/store/scratch.h"
#include "image/store/store.h"
#include "image/store/usage.h"

/* ---- its life ---- */

static int set_jobs(struct image_store *s, const struct image_store_options *o, struct err *err)
{
	struct jobs *js = &s->jobs;
	struct utsname u;
	int r;

	js->loop = o->loop;
	js->store = s->store;
	js->max_layers_at_once = o->max_layers_at_once
					 ? MIN_OF(o->max_layers_at_once, ENGINE_LAYERS_AT_ONCE_MAX)
					 : ENGINE_LAYERS_AT_ONCE;
	js->max_layers_in_all = o->max_layers_in_all ? o->max_layers_in_all : ENGINE_LAYERS_IN_ALL;
	js->fetcher_config.retry_base_ms = o->retry_base_ms;
	js->fetcher_config.stall_s = o->stall_s;
	js->fetcher_config.hosts_dir = o->hosts_dir ? strdup(o->hosts_dir) : NULL;
	if (o->hosts_dir && !js->fetcher_config.hosts_dir)
		return err_nomem(err);
	uname(&u);
	js->arch = strdup(o->arch ? o->arch : str_eq(u.machine, "aarch64") ? "arm64" : "amd64");
	r = js->arch ? procs_init(&js->procs, o->loop, o->worker, err) : err_nomem(err);
	if (r == 0)
		r = procs_set_uids(&js->procs,
				   o->worker_uid_first ? o->worker_uid_first : PROC_UID_FIRST,
				   o->worker_uids ? o->worker_uids : PROC_UIDS, err);
	return r;
}

int image_store_open(const struct image_store_options *o, struct image_store **ret, struct err *err)
{
	const struct store_options so = {
		.loop = o->loop,
		.dir = o->dir,
		.pinned = o->pinned,
		.drop_blobs = o->drop_blobs,
		.reserve = o->reserve,
	};
	struct image_store *s = calloc(1, sizeof(*s));
	int r = s ? store_open(&so, &s->store, err) : err_nomem(err);

	if (r == 0)
		r = set_jobs(s, o, err);
	if (r < 0) {
		image_store_close(s);
		return r;
	}
	baseline_schedule(&s->jobs);
	*ret = s;
	return 0;
}

/* Jobs end before the processes that work for them, and both before the store that they fill. */
void image_store_close(struct image_store *s)
{
	struct err why = { 0 };

	if (!s)
		return;
	err_set(&why, -ECANCELED, "the image store is closing");
	jobs_stop(&s->jobs, &why);
	baseline_close(&s->jobs);
	procs_close(&s->jobs.procs);
	store_close(s->store);
	free(s->jobs.fetcher_config.hosts_dir);
	free(s->jobs.arch);
	free(s);
}

/* ---- images ---- */

int image_get(struct image_store *s, const char *ref, struct image_info **ret, struct err *err)
{
	return images_get(s->store, ref, ret, err);
}

int image_list(struct image_store *s, const char *ref, struct image_info ***ret, size_t *ret_n,
	       struct err *err)
{
	return images_list(s->store, ref, ret, ret_n, err);
}

int image_remove(struct image_store *s, const char *ref, struct err *err)
{
	return images_remove(s->store, ref, err);
}

int image_untag(struct image_store *s, const char *ref, bool force, struct image_untagged *ret,
		struct err *err)
{
	return names_untag(s->store, ref, force, ret, err);
}

int image_tag(struct image_store *s, const char *ref, const char *name, char **ret_name,
	      struct err *err)
{
	return names_tag(s->store, ref, name, ret_name, err);
}

int image_sync(struct image_store *s, void (*done)(void *arg, int code, const struct err *err),
	       void *arg, struct err *err)
{
	struct disk_sync *sync;

	return disk_sync(s->store, done, arg, &sync, err);
}

int image_written(struct image_store *s, void (*done)(void *arg, int code, const struct err *err),
		  void *arg, struct err *err)
{
	return db_written(s->store, done, arg, err);
}

int image_pin(struct image_store *s, const char *ref, bool pinned, struct err *err)
{
	return images_pin(s->store, ref, pinned, err);
}

/* ---- use by containers ---- */

int image_hold(struct image_store *s, const char *id, const char *holder, struct err *err)
{
	return holds_add(s->store, id, holder, err);
}

int image_release(struct image_store *s, const char *holder, struct err *err)
{
	return holds_end(s->store, holder, err);
}

int image_holders(struct image_store *s, char ***ret, struct err *err)
{
	return holds_list(s->store, ret, err);
}

int image_layers(struct image_store *s, const char *id, char ***ret, struct err *err)
{
	return layers_paths(s->store, id, ret, err);
}

int image_scratch_create(struct image_store *s, const char *path,
			 void (*done)(void *arg, int code, const struct err *err), void *arg,
			 struct err *err)
{
	return scratch_create(s->store, path, done, arg, err);
}

void image_discard(struct image_store *s, const char *path)
{
	scratch_discard(s->store, path);
}

/* ---- disk use ---- */

int image_fs_info(struct image_store *s, struct image_fs_usage *ret, struct err *err)
{
	return usage_fs_info(s->store, ret, err);
}

int image_usage(struct image_store *s, struct image_use ret[IMAGE_USE_KINDS], struct err *err)
{
	return usage_get(s->store, ret, err);
}

int image_prune(struct image_store *s, const struct image_prune_options *o,
		struct image_pruned *ret, struct err *err)
{
	return usage_prune(s->store, o, ret, err);
}

/* ---- jobs ---- */

int image_pull(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
	       struct err *err)
{
	return pull_new(&s->jobs, ref, auth, progress, done, arg, ret, err);
}

int image_push(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_push_progress_fn progress, image_push_done_fn done, void *arg,
	       struct image_push **ret, struct err *err)
{
	return push_new(&s->jobs, ref, auth, progress, done, arg, ret, err);
}

int image_login(struct image_store *s, const char *server, const struct image_auth *auth,
		image_login_done_fn done, void *arg, struct image_login **ret, struct err *err)
{
	return login_new(&s->jobs, server, auth, done, arg, ret, err);
}

int image_save_open(struct image_store *s, char *const *refs, size_t n, enum image_archive format,
		    struct image_save **ret, struct err *err)
{
	return save_new(s->store, refs, n, format, ret, err);
}

int image_load_new(struct image_store *s, const char *name, const struct image_load_ops *ops,
		   void *arg, struct image_load **ret, struct err *err)
{
	return load_new(&s->jobs, name, ops, arg, ret, err);
}

int image_verify(struct image_store *s, char *const *refs, image_verify_fn fn,
		 image_verify_done_fn done, void *arg, struct image_verify **ret, struct err *err)
{
	return verify_new(&s->jobs, refs, fn, done, arg, ret, err);
}

/* ---- without a store ---- */

bool image_err_unavailable(int code)
{
	return failure_unavailable(code);
}

int image_normalize(const char *ref, char **ret, struct err *err)
{
	return reference_normalize(ref, ret, err);
}
