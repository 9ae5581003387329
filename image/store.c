/* The store's life and its layers. Images and names are in store_images.c. */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/util.h"
#include "image/store_blobs.h"

/* ---- layers ---- */

char *store_layer_path(const struct image_store *s, const char *diff_id)
{
	return str_fmt("%s/%s.ext4", s->layers_dir, diff_id + strlen("sha256:"));
}

int store_has_layer(struct image_store *s, const char *diff_id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT 1 FROM layers WHERE diff_id=?", &st, err, diff_id, NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r != SQLITE_ROW && r != SQLITE_DONE)
		return db_error(s, err);
	return r == SQLITE_ROW;
}

int store_sync_dir(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_errno(err, -errno, "sync %s", path);
	return 0;
}

int store_add_layer(struct image_store *s, const char *diff_id, const char *tmp, struct err *err)
{
	cleanup_free char *path = store_layer_path(s, diff_id);
	cleanup_stmt sqlite3_stmt *st = NULL;
	struct stat stat_buf;
	int r;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	if (stat(tmp, &stat_buf) < 0 || chmod(tmp, 0400) < 0)
		return err_errno(err, -errno, "%s", tmp);
	if (rename(tmp, path) < 0)
		return err_errno(err, -errno, "rename %s", tmp);
	r = store_sync_dir(s->layers_dir, err);
	if (r >= 0)
		r = db_prepare(s, "INSERT OR REPLACE INTO layers(diff_id, bytes) VALUES(?, ?)", &st,
			       err, diff_id, NULL);
	if (r >= 0 && (sqlite3_bind_int64(st, 2, (int64_t)stat_buf.st_blocks * 512) != SQLITE_OK ||
		       sqlite3_step(st) != SQLITE_DONE))
		r = db_error(s, err);
	if (r < 0)
		(void)unlink(path);
	return r;
}

static int delete_layer(struct image_store *s, const char *diff_id, struct err *err)
{
	cleanup_free char *path = store_layer_path(s, diff_id);
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	r = db_prepare(s, "DELETE FROM layers WHERE diff_id=?", &st, err, diff_id, NULL);
	if (r < 0)
		return r;
	if (sqlite3_step(st) != SQLITE_DONE)
		return db_error(s, err);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(err, -errno, "remove %s", path);
	return 0;
}

int store_collect(struct image_store *s, struct err *err)
{
	cleanup_strv char **unused = NULL;
	cleanup_stmt sqlite3_stmt *st = NULL;
	size_t n = 0;
	int c, r = db_prepare(s,
			      "SELECT diff_id FROM layers l WHERE NOT EXISTS"
			      " (SELECT 1 FROM image_layers i WHERE i.diff_id=l.diff_id)",
			      &st, err, NULL);

	if (r < 0)
		return r;
	while ((c = sqlite3_step(st)) == SQLITE_ROW) {
		const char *d = (const char *)sqlite3_column_text(st, 0);
		char **more;

		if (!d || pulls_need_layer(s, d))
			continue;
		more = realloc(unused, (n + 2) * sizeof(*more));
		if (!more)
			return err_set(err, -ENOMEM, "no memory");
		unused = more;
		unused[n] = strdup(d);
		unused[++n] = NULL;
	}
	if (c != SQLITE_DONE)
		return db_error(s, err);
	for (size_t k = 0; k < n; k++) {
		r = unused[k] ? delete_layer(s, unused[k], err)
			      : err_set(err, -ENOMEM, "no memory");
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- opening ---- */

int store_each_name(const char *dir, int (*fn)(struct image_store *, const char *, struct err *),
		    struct image_store *s, struct err *err)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return err_errno(err, -errno, "open %s", dir);
	while (r >= 0 && (e = readdir(d)))
		if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, ".."))
			r = fn(s, e->d_name, err);
	closedir(d);
	return r;
}

static int remove_tmp(struct image_store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->tmp_dir, name);

	return path ? remove_tree(path, err) : err_set(err, -ENOMEM, "no memory");
}

/* A layer's file whose row did not get written, or whose removal was cut short. */
static int remove_stray(struct image_store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->layers_dir, name);
	char diff_id[DIGEST_LEN + 1];
	int r = 0;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	if (strlen(name) == 64 + 5 && str_ends(name, ".ext4")) {
		snprintf(diff_id, sizeof(diff_id), "sha256:%.64s", name);
		r = store_has_layer(s, diff_id, err);
	}
	return r == 0 ? remove_tree(path, err) : r < 0 ? r : 0;
}

/* A row whose file is gone takes its images with it: they are pulled again. */
static int drop_broken(struct image_store *s, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int c, r = db_prepare(s, "SELECT diff_id FROM layers", &st, err, NULL);

	if (r < 0)
		return r;
	while ((c = sqlite3_step(st)) == SQLITE_ROW) {
		const char *d = (const char *)sqlite3_column_text(st, 0);
		cleanup_free char *path = digest_valid(d) ? store_layer_path(s, d) : NULL;
		cleanup_stmt sqlite3_stmt *holds = NULL, *images = NULL;

		if (path && access(path, F_OK) == 0)
			continue;
		r = db_prepare(s,
			       "DELETE FROM holds WHERE image IN"
			       " (SELECT image FROM image_layers WHERE diff_id=?)",
			       &holds, err, d, NULL);
		if (r >= 0)
			r = db_prepare(s,
				       "DELETE FROM images WHERE id IN"
				       " (SELECT image FROM image_layers WHERE diff_id=?)",
				       &images, err, d, NULL);
		if (r < 0)
			return r;
		if (sqlite3_step(holds) != SQLITE_DONE || sqlite3_step(images) != SQLITE_DONE)
			return db_error(s, err);
	}
	return c == SQLITE_DONE ? 0 : db_error(s, err);
}

static int lock(struct image_store *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/lock", s->dir);

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return err_errno(err, -errno, "%s", path);
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
			       "the image store %s is in use by another process", s->dir);
	return 0;
}

static int set_strings(struct image_store *s, const struct image_store_options *o, struct err *err)
{
	cleanup_free char *bin = NULL;
	struct utsname u;
	int r = mkdir_p(o->dir, 0700, err);

	if (r < 0)
		return r;
	s->dir = realpath(o->dir, NULL);
	if (!s->dir)
		return err_errno(err, -errno, "%s", o->dir);
	s->layers_dir = str_fmt("%s/layers/sha256", s->dir);
	s->tmp_dir = str_fmt("%s/tmp", s->dir);
	s->ingest_dir = str_fmt("%s/ingest/sha256", s->dir);
	s->blobs_dir = str_fmt("%s/blobs/sha256", s->dir);
	if (!o->worker) {
		r = program_dir(&bin, err);
		if (r < 0)
			return r;
	}
	s->worker = o->worker ? strdup(o->worker) : str_fmt("%s/husk-image-worker", bin);
	uname(&u);
	s->arch = strdup(o->arch ? o->arch : str_eq(u.machine, "aarch64") ? "arm64" : "amd64");
	if (!s->layers_dir || !s->tmp_dir || !s->ingest_dir || !s->blobs_dir || !s->worker ||
	    !s->arch)
		return err_set(err, -ENOMEM, "no memory");
	r = mkdir_p(s->layers_dir, 0700, err);
	return r < 0 ? r : mkdir_p(s->tmp_dir, 0700, err);
}

static int clean_up(struct image_store *s, struct err *err)
{
	int r = store_each_name(s->tmp_dir, remove_tmp, s, err);

	if (r >= 0)
		r = drop_broken(s, err);
	if (r >= 0)
		r = store_collect(s, err);
	return r < 0 ? r : store_each_name(s->layers_dir, remove_stray, s, err);
}

int image_store_open(const struct image_store_options *o, struct image_store **ret, struct err *err)
{
	struct image_store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "no memory");
	s->loop = o->loop;
	s->lock_fd = -1;
	s->max_layers_at_once = o->max_layers_at_once ? MIN_OF(o->max_layers_at_once, 8u) : 3;
	r = set_strings(s, o, err);
	if (r >= 0)
		r = lock(s, err);
	if (r >= 0)
		r = store_db_open(s, err);
	if (r >= 0)
		r = clean_up(s, err);
	if (r >= 0)
		r = blobs_open(s, err);
	if (r >= 0)
		r = scratch_prepare(s, err);
	if (r < 0) {
		image_store_close(s);
		return err_wrap(err, r, "image store");
	}
	*ret = s;
	return 0;
}

void image_store_close(struct image_store *s)
{
	if (!s)
		return;
	pulls_close(s);
	blobs_close(s);
	sqlite3_close(s->db);
	fd_close(&s->lock_fd);
	free(s->dir);
	free(s->layers_dir);
	free(s->tmp_dir);
	free(s->ingest_dir);
	free(s->blobs_dir);
	free(s->worker);
	free(s->arch);
	free(s->scratch);
	free(s);
}
