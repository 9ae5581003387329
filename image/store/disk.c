#include "image/store/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sql/file.h"
#include "base/thread/work.h"
#include "base/util.h"
#include "image/store/internal.h"

/* ---- removal ---- */

struct removal {
	struct work_job job;
	char path[];
};

static int disk_remove_work(struct work_job *j, struct err *err)
{
	return remove_tree(container_of(j, struct removal, job)->path, err);
}

static void disk_remove_done(struct work_job *j, int code, const struct err *err)
{
	if (code < 0)
		log_limited(LOG_WARN, "cannot remove", "err", err_text(err));
	free(container_of(j, struct removal, job));
}

void disk_remove(struct work *disk, const char *path)
{
	size_t n = strlen(path) + 1;
	struct removal *r = calloc(1, sizeof(*r) + n);

	if (!r) {
		(void)!remove_tree(path, NULL);
		return;
	}
	memcpy(r->path, path, n);
	r->job.work = disk_remove_work;
	r->job.done = disk_remove_done;
	work_add(disk, &r->job);
}

/* ---- sync ---- */

/* First the directory, by the thread for files, after the blobs that are becoming complete; then
 * the rows, those of these blobs, too. */
struct disk_sync {
	struct work_job job;
	struct store *s;
	const char *layers_dir; /* NULL = nothing new is in it */
	wait_fn done;
	void *arg;
};

static void disk_on_rows(void *arg, int code, const struct err *err)
{
	struct disk_sync *y = arg;

	if (y->done)
		y->done(y->arg, code, err);
	free(y);
}

static int disk_sync_work(struct work_job *j, struct err *err)
{
	struct disk_sync *y = container_of(j, struct disk_sync, job);

	return y->layers_dir ? store_sync_dir(y->layers_dir, err) : 0;
}

static void disk_sync_done(struct work_job *j, int code, const struct err *err)
{
	struct disk_sync *y = container_of(j, struct disk_sync, job);
	struct err copy = *err;

	if (code < 0)
		y->s->layers_unsynced = true;
	if (code == 0)
		code = sqlfile_sync(y->s->file, disk_on_rows, y, &copy);
	if (code < 0)
		disk_on_rows(y, code, &copy);
}

int disk_sync(struct store *s, wait_fn done, void *arg, struct disk_sync **ret, struct err *err)
{
	struct disk_sync *y = calloc(1, sizeof(*y));

	if (!y)
		return err_nomem(err);
	y->s = s;
	y->done = done;
	y->arg = arg;
	if (s->layers_unsynced)
		y->layers_dir = s->layers_dir;
	s->layers_unsynced = false;
	y->job.work = disk_sync_work;
	y->job.done = disk_sync_done;
	work_add(s->disk, &y->job);
	*ret = y;
	return 0;
}

void disk_sync_forget(struct disk_sync *y)
{
	if (y)
		y->done = NULL;
}
