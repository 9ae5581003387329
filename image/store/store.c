/* The store's life: opening, which removes what a crash left, and closing. */
#include "image/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/thread/work.h"
#include "base/util.h"
#include "image/reference.h"
#include "image/store/blobs.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/internal.h"
#include "image/store/layers.h"
#include "image/store/scratch.h"

/* ---- places ---- */

const char *store_dir(const struct store *s)
{
	return s->dir;
}

char *store_tmp_path(struct store *s, const char *suffix)
{
	return str_fmt("%s/%llu%s", s->tmp_dir, (unsigned long long)++s->tmp_serial, suffix);
}

int store_tmp_file(struct store *s, int *ret_fd, struct err *err)
{
	int fd = open(s->tmp_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(err, -errno, "make a file in %s", s->tmp_dir);
	*ret_fd = fd;
	return 0;
}

int store_sync_dir(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_errno(err, -errno, "sync %s", path);
	return 0;
}

int store_each_name(struct store *s, const char *dir,
		    int (*fn)(struct store *s, const char *name, struct err *err), struct err *err)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return err_errno(err, -errno, "open %s", dir);
	while (r == 0 && (e = readdir(d)))
		if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, ".."))
			r = fn(s, e->d_name, err);
	closedir(d);
	return r;
}

/* ---- opening ---- */

static int lock(struct store *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/lock", s->dir);

	if (!path)
		return err_nomem(err);
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return err_errno(err, -errno, "%s", path);
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
			       "the image store %s is in use by another process", s->dir);
	return 0;
}

static int make_dirs(struct store *s, const char *dir, struct err *err)
{
	int r = mkdir_p(dir, 0700, err);

	if (r < 0)
		return r;
	s->dir = realpath(dir, NULL);
	if (!s->dir)
		return err_errno(err, -errno, "%s", dir);
	s->layers_dir = str_fmt("%s/layers/sha256", s->dir);
	s->tmp_dir = str_fmt("%s/tmp", s->dir);
	s->ingest_dir = str_fmt("%s/ingest/sha256", s->dir);
	s->blobs_dir = str_fmt("%s/blobs/sha256", s->dir);
	if (!s->layers_dir || !s->tmp_dir || !s->ingest_dir || !s->blobs_dir)
		return err_nomem(err);
	r = mkdir_p(s->layers_dir, 0700, err);
	return r < 0 ? r : mkdir_p(s->tmp_dir, 0700, err);
}

static int set_pinned(struct store *s, char *const *names, struct err *err)
{
	size_t n = strv_len(names);

	s->pinned = calloc(n + 1, sizeof(*s->pinned));
	if (!s->pinned)
		return err_nomem(err);
	for (size_t k = 0; k < n; k++) {
		int r = reference_normalize(names[k], &s->pinned[k], err);

		if (r < 0)
			return err_wrap(err, r, "pinned image \"%.100s\"", names[k]);
	}
	return 0;
}

static int store_on_tmp(struct store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->tmp_dir, name);

	return path ? remove_tree(path, err) : err_nomem(err);
}

/* Rows before files: a collection deletes what has no row left. */
static int clean_up(struct store *s, struct err *err)
{
	int r = store_each_name(s, s->tmp_dir, store_on_tmp, err);

	if (r == 0)
		r = layers_drop_rows(s, err);
	if (r == 0)
		r = gc_collect(s, err);
	return r < 0 ? r : layers_remove_strays(s, err);
}

int store_open(const struct store_options *o, struct store **ret, struct err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_nomem(err);
	s->loop = o->loop;
	s->lock_fd = -1;
	s->drop_blobs = o->drop_blobs;
	s->reserve = o->reserve;
	r = make_dirs(s, o->dir, err);
	if (r == 0)
		r = set_pinned(s, o->pinned, err);
	if (r == 0)
		r = lock(s, err);
	if (r == 0)
		r = work_new(s->loop, &s->disk, err);
	if (r == 0)
		r = db_open(s, err);
	if (r == 0)
		r = blobs_open(s, err);
	if (r == 0)
		r = clean_up(s, err);
	if (r == 0)
		r = scratch_prepare(s, err);
	if (r < 0) {
		store_close(s);
		return err_wrap(err, r, "image store");
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	blobs_close(s);
	while (s->leases)
		lease_end(s->leases, false);
	work_free(s->disk);
	s->disk = NULL;
	gc_make_room_at_end(s);
	db_close(s);
	fd_close(&s->lock_fd);
	free(s->dir);
	free(s->layers_dir);
	free(s->tmp_dir);
	free(s->ingest_dir);
	free(s->blobs_dir);
	free(s->scratch);
	strv_free(s->pinned);
	free(s);
}
