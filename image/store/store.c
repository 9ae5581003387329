/* The store's life and its layers. Images and names are in images.c. */
#include "image/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "image/store/disk.h"
#include "image/store/blobs.h"

/* ---- layers ---- */

char *store_tmp_path(struct image_store *s, const char *suffix)
{
	return str_fmt("%s/%llu%s", s->tmp_dir, (unsigned long long)++s->tmp_serial, suffix);
}

char *store_layer_path(const struct image_store *s, const char *diff_id)
{
	return str_fmt("%s/%s.ext4", s->layers_dir, diff_id + strlen("sha256:"));
}

/* 1 when there is a row, *ret_damaged says of what. */
static int find_layer(struct image_store *s, const char *diff_id, bool *ret_damaged,
		      struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT damaged FROM layers WHERE diff_id=?", &st, err, diff_id,
			   NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r != SQLITE_ROW && r != SQLITE_DONE)
		return db_error(s, err);
	*ret_damaged = r == SQLITE_ROW && sqlite3_column_int(st, 0) != 0;
	return r == SQLITE_ROW;
}

int store_has_layer(struct image_store *s, const char *diff_id, struct err *err)
{
	bool damaged;
	int r = find_layer(s, diff_id, &damaged, err);

	return r > 0 && damaged ? 0 : r;
}

int store_sync_dir(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_errno(err, -errno, "sync %s", path);
	return 0;
}

int store_sync_layers(struct image_store *s, struct err *err)
{
	int r = s->layers_unsynced ? store_sync_dir(s->layers_dir, err) : 0;

	if (r >= 0)
		s->layers_unsynced = false;
	return r;
}

int store_add_layer(struct image_store *s, const char *diff_id, const char *tmp, struct err *err)
{
	cleanup_free char *path = store_layer_path(s, diff_id);
	char bytes[24], now[24];
	bool damaged;
	struct stat st;
	int known, r;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	known = find_layer(s, diff_id, &damaged, err);
	if (known < 0)
		return known;
	if (stat(tmp, &st) < 0 || chmod(tmp, 0400) < 0)
		return err_errno(err, -errno, "%s", tmp);
	if (rename(tmp, path) < 0)
		return err_errno(err, -errno, "rename %s", tmp);
	snprintf(bytes, sizeof(bytes), "%lld", (long long)st.st_blocks * 512);
	snprintf(now, sizeof(now), "%lld", (long long)time(NULL));
	s->layers_unsynced = true;
	/* In place of a damaged one: its row may be on disk any time from now on. */
	r = known ? store_sync_layers(s, err) : 0;
	if (r >= 0)
		r = db_run(s, err,
			   "INSERT INTO layers(diff_id, bytes, pending)"
			   " VALUES(?, CAST(? AS INTEGER), CAST(? AS INTEGER))"
			   " ON CONFLICT(diff_id) DO UPDATE SET bytes=excluded.bytes, content='',"
			   " damaged=0",
			   diff_id, bytes, now, NULL);
	if (r < 0)
		(void)unlink(path);
	else
		store_note_later(s);
	return r;
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
	bool damaged;
	int r = 0;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	if (strlen(name) == 64 + 5 && str_ends(name, ".ext4")) {
		snprintf(diff_id, sizeof(diff_id), "sha256:%.64s", name);
		r = find_layer(s, diff_id, &damaged, err);
	}
	return r == 0 ? remove_tree(path, err) : r < 0 ? r : 0;
}

/* A row whose file is gone takes its images with it: they are pulled again. */
static int drop_broken(struct image_store *s, struct err *err)
{
	static const char *const sql[] = {
		("DELETE FROM holds WHERE image IN"
		 " (SELECT image FROM image_layers WHERE diff_id=?)"),
		"DELETE FROM images WHERE id IN (SELECT image FROM image_layers WHERE diff_id=?)",
		"DELETE FROM layers WHERE diff_id=?",
	};
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_strv char **all = NULL;
	int r = db_prepare(s, "SELECT diff_id FROM layers", &st, err, NULL);

	if (r >= 0)
		r = db_column(s, st, &all, err);
	for (char **d = all; r >= 0 && *d; d++) {
		cleanup_free char *path = digest_valid(*d) ? store_layer_path(s, *d) : NULL;

		if (path && access(path, F_OK) == 0)
			continue;
		for (size_t k = 0; r >= 0 && k < ARRAY_SIZE(sql); k++)
			r = db_run(s, err, sql[k], *d, NULL);
	}
	return r;
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
	s->fetcher_config.hosts_dir = o->hosts_dir ? strdup(o->hosts_dir) : NULL;
	if (o->hosts_dir && !s->fetcher_config.hosts_dir)
		return err_set(err, -ENOMEM, "no memory");
	uname(&u);
	s->arch = strdup(o->arch ? o->arch : str_eq(u.machine, "aarch64") ? "arm64" : "amd64");
	if (!s->layers_dir || !s->tmp_dir || !s->ingest_dir || !s->blobs_dir || !s->arch)
		return err_set(err, -ENOMEM, "no memory");
	r = mkdir_p(s->layers_dir, 0700, err);
	return r < 0 ? r : mkdir_p(s->tmp_dir, 0700, err);
}

static int set_pinned(struct image_store *s, char *const *names, struct err *err)
{
	size_t n = strv_len(names);

	s->pinned = calloc(n + 1, sizeof(*s->pinned));
	if (!s->pinned)
		return err_set(err, -ENOMEM, "no memory");
	for (size_t k = 0; k < n; k++) {
		int r = image_normalize(names[k], &s->pinned[k], err);

		if (r < 0)
			return err_wrap(err, r, "pinned image \"%.100s\"", names[k]);
	}
	return 0;
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
	s->max_layers_at_once = o->max_layers_at_once ? MIN_OF(o->max_layers_at_once, 16u) : 3;
	s->max_layers_in_all = o->max_layers_in_all ? o->max_layers_in_all : 8;
	s->fetcher_config.retry_base_ms = o->retry_base_ms;
	s->fetcher_config.stall_s = o->stall_s;
	s->drop_blobs = o->drop_blobs;
	r = set_strings(s, o, err);
	if (r >= 0)
		r = procs_init(&s->procs, o->loop, o->worker, err);
	if (r >= 0)
		r = set_pinned(s, o->pinned, err);
	if (r >= 0)
		r = lock(s, err);
	if (r >= 0)
		r = disk_new(s->loop, &s->disk, err);
	if (r >= 0)
		r = store_db_open(s, err);
	if (r >= 0)
		r = blobs_open(s, err);
	if (r >= 0)
		r = clean_up(s, err);
	if (r >= 0)
		r = scratch_prepare(s, err);
	if (r < 0) {
		image_store_close(s);
		return err_wrap(err, r, "image store");
	}
	store_note_later(s);
	*ret = s;
	return 0;
}

void image_store_close(struct image_store *s)
{
	if (!s)
		return;
	verifies_close(s);
	pulls_close(s);
	blobs_close(s);
	while (s->leases) {
		struct lease *l = s->leases;

		lease_end(l, false);
	}
	disk_free(s->disk);
	s->disk = NULL;
	store_make_room_at_end(s);
	sqlite3_close(s->db);
	fd_close(&s->lock_fd);
	free(s->dir);
	free(s->layers_dir);
	free(s->tmp_dir);
	free(s->ingest_dir);
	free(s->blobs_dir);
	free(s->fetcher_config.hosts_dir);
	free(s->arch);
	free(s->scratch);
	strv_free(s->pinned);
	free(s);
}
