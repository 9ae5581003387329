#include "image/store/blobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/thread/work.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/ingest_wait.h"
#include "image/store/internal.h"
#include "image/store/space.h"

struct ingest {
	struct store *s;
	struct ingest *next;
	char digest[DIGEST_LEN + 1];
	int fd;
	uint64_t had;
	/* While it becomes complete: */
	bool committing, unwanted, forgotten;
	struct work_job job;
	char *from, *to, *to_dir;
	struct stat st;
};

static char *path_of(const char *dir, const char *digest)
{
	return str_fmt("%s/%s", dir, digest + strlen("sha256:"));
}

static int check_digest(const char *digest, struct err *err)
{
	return digest_valid(digest)
		       ? 0
		       : err_set(err, -EINVAL, "bad digest \"%.100s\"", digest ? digest : "");
}

/* ---- coming in ---- */

static void unlink_from(const char *dir, const char *digest)
{
	cleanup_free char *path = path_of(dir, digest);

	if (path)
		(void)unlink(path);
}

static void ingest_free(struct ingest *i)
{
	struct ingest **at = &i->s->ingests;
	bool was_open;

	while (*at && *at != i)
		at = &(*at)->next;
	was_open = *at == i;
	if (was_open)
		*at = i->next;
	fd_close(&i->fd);
	if (was_open)
		ingest_wait_run(i->s, i->digest);
	free(i->from);
	free(i->to);
	free(i->to_dir);
	free(i);
}

static struct ingest *find(const struct store *s, const char *digest)
{
	struct ingest *i = s->ingests;

	while (i && !str_eq(i->digest, digest))
		i = i->next;
	return i;
}

static int open_file(struct ingest *i, struct err *err)
{
	cleanup_free char *path = path_of(i->s->ingest_dir, i->digest);
	struct stat st;

	if (!path)
		return err_nomem(err);
	i->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (i->fd < 0)
		return err_errno(err, -errno, "%s", path);
	/* Held by all who have the descriptor: a process that dies slowly still writes to it. */
	if (flock(i->fd, LOCK_EX | LOCK_NB) < 0)
		return err_errno(err, errno == EWOULDBLOCK ? -EBUSY : -errno, "%s", path);
	if (fstat(i->fd, &st) < 0)
		return err_errno(err, -errno, "%s", path);
	/* Its age counts from here: a pull that is slow to begin must not lose it. */
	(void)futimens(i->fd, NULL);
	i->had = (uint64_t)st.st_size;
	return 0;
}

int ingest_open(struct store *s, const char *digest, struct ingest **ret, struct err *err)
{
	struct ingest *i;
	int r = check_digest(digest, err);

	if (r < 0)
		return r;
	i = find(s, digest);
	if (i && (!i->committing || i->unwanted))
		return err_set(err, -EBUSY, "blob %s is coming in already", digest);
	r = blob_has(s, digest, err);
	if (r != 0)
		return r < 0 ? r : err_set(err, -EEXIST, "blob %s is there already", digest);
	i = calloc(1, sizeof(*i));
	if (!i)
		return err_nomem(err);
	i->s = s;
	i->fd = -1;
	memcpy(i->digest, digest, sizeof(i->digest));
	r = open_file(i, err);
	if (r < 0) {
		ingest_free(i);
		return r;
	}
	i->next = s->ingests;
	s->ingests = i;
	*ret = i;
	return 0;
}

bool ingest_is_open(const struct store *s, const char *digest)
{
	return find(s, digest) != NULL;
}

int ingest_fd(const struct ingest *i)
{
	return i->fd;
}

uint64_t ingest_had(const struct ingest *i)
{
	return i->had;
}

int ingest_reset(struct ingest *i, struct err *err)
{
	if (ftruncate(i->fd, 0) < 0)
		return err_errno(err, -errno, "truncate blob %s", i->digest);
	i->had = 0;
	return 0;
}

/* What an image refers to already is not pending. */
static int add_row(struct store *s, const char *digest, const struct stat *st, time_t now_s,
		   struct err *err)
{
	const struct sql_value v[] = { sql_text(digest), sql_int(st->st_size),
				       sql_int((int64_t)st->st_blocks * 512), sql_int(now_s) };

	return db_write(s,
			"INSERT OR REPLACE INTO blobs(digest, size, bytes, pending) VALUES(?1, ?2,"
			" ?3, CASE WHEN"
			" EXISTS (SELECT 1 FROM manifest_layers WHERE digest=?1) OR"
			" EXISTS (SELECT 1 FROM manifests WHERE digest=?1) OR"
			" EXISTS (SELECT 1 FROM names WHERE target=?1) OR"
			" EXISTS (SELECT 1 FROM images WHERE id=?1)"
			" THEN 0 ELSE ?4 END)",
			v, ARRAY_SIZE(v), err);
}

/* In the disk thread. */
static int blobs_commit_work(struct work_job *j, struct err *err)
{
	struct ingest *i = container_of(j, struct ingest, job);

	if (fchmod(i->fd, 0400) < 0 || fsync(i->fd) < 0 || fstat(i->fd, &i->st) < 0)
		return err_errno(err, -errno, "sync %s", i->from);
	if (rename(i->from, i->to) < 0)
		return err_errno(err, -errno, "rename %s", i->from);
	return store_sync_dir(i->to_dir, err);
}

static void blobs_commit_done(struct work_job *j, int code, const struct err *err)
{
	struct ingest *i = container_of(j, struct ingest, job);
	bool forgotten = i->forgotten;
	struct store *s = i->s;

	if (code == 0 && !i->unwanted)
		code = add_row(s, i->digest, &i->st, forgotten ? 0 : time(NULL), NULL);
	if (code < 0 || i->unwanted) {
		(void)unlink(i->from);
		(void)unlink(i->to);
	}
	ingest_free(i);
	if (forgotten)
		(void)!gc_collect(s, NULL);
}

void ingest_forget(struct store *s, const char *digest)
{
	for (struct ingest *i = s->ingests; i; i = i->next)
		if (i->committing && (!digest || str_eq(i->digest, digest)))
			i->forgotten = true;
}

void ingest_commit(struct ingest *i)
{
	check(!i->committing);
	i->from = path_of(i->s->ingest_dir, i->digest);
	i->to = path_of(i->s->blobs_dir, i->digest);
	i->to_dir = strdup(i->s->blobs_dir);
	if (!i->from || !i->to || !i->to_dir) {
		ingest_drop(i);
		return;
	}
	i->committing = true;
	i->job.work = blobs_commit_work;
	i->job.done = blobs_commit_done;
	work_add(i->s->disk, &i->job);
}

void ingest_keep(struct ingest *i)
{
	if (!i)
		return;
	check(!i->committing);
	ingest_free(i);
}

void ingest_drop(struct ingest *i)
{
	if (!i)
		return;
	check(!i->committing);
	unlink_from(i->s->ingest_dir, i->digest);
	ingest_free(i);
}

/* ---- complete ---- */

int blob_has(struct store *s, const char *digest, struct err *err)
{
	const struct ingest *i = find(s, digest);

	if (i && i->committing)
		return !i->unwanted;
	return db_exists(s, err, "SELECT 1 FROM blobs WHERE digest=?", digest, NULL);
}

/* It may be on its way from one place to the other, in this order. */
static int open_at_either(struct store *s, const char *digest)
{
	cleanup_free char *from = path_of(s->ingest_dir, digest);
	cleanup_free char *to = path_of(s->blobs_dir, digest);
	const struct ingest *i = find(s, digest);
	int fd = -1;

	if (!from || !to)
		return -ENOMEM;
	if (i && i->committing)
		fd = open(from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		fd = open(to, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int blob_open(struct store *s, const char *digest, int *ret_fd, uint64_t *ret_size, struct err *err)
{
	cleanup_fd int fd = -1;
	struct stat st;
	int r = check_digest(digest, err);

	if (r == 0)
		r = blob_has(s, digest, err);
	if (r < 0)
		return r;
	fd = r > 0 ? open_at_either(s, digest) : -ENOENT;
	if (fd == -ENOENT)
		return err_set(err, -ENOENT, "blob %s is not kept here", digest);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, fd < 0 ? fd : -errno, "open blob %s", digest);
	*ret_fd = take_fd(&fd);
	if (ret_size)
		*ret_size = (uint64_t)st.st_size;
	return 0;
}

int blob_put(struct store *s, const void *data, size_t len, char *ret_digest, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	struct ingest *i;
	int r;

	if (len > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "document of more than %zu MiB",
			       IMAGE_MAX_DOCUMENT / MIB);
	r = digest_of(data, len, digest);
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = ingest_open(s, digest, &i, err);
	if (r < 0 && r != -EEXIST)
		return r;
	if (r == 0) {
		r = ingest_reset(i, err);
		if (r == 0) {
			r = write_all(i->fd, data, len);
			if (r < 0)
				err_errno(err, r, "write blob %s", digest);
		}
		if (r < 0) {
			ingest_drop(i);
			return r;
		}
		ingest_commit(i);
	}
	if (ret_digest)
		memcpy(ret_digest, digest, sizeof(digest));
	return 0;
}

int blob_read(struct store *s, const char *digest, char **ret, size_t *ret_len, struct err *err)
{
	cleanup_free char *data = NULL;
	cleanup_fd int fd = -1;
	char found[DIGEST_LEN + 1];
	size_t len;
	int r = blob_open(s, digest, &fd, NULL, err);

	if (r < 0)
		return r;
	r = read_fd(fd, IMAGE_MAX_DOCUMENT, &data, &len);
	if (r == 0)
		r = digest_of(data, len, found);
	if (r < 0)
		return err_errno(err, r, "read blob %s", digest);
	if (!str_eq(found, digest))
		return err_set(err, -EBADMSG, "blob %s is damaged", digest);
	*ret = take_ptr(&data);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int blob_delete(struct store *s, const char *digest, struct err *err)
{
	cleanup_free char *path = NULL;
	struct ingest *i;
	int r = check_digest(digest, err);

	if (r < 0)
		return r;
	i = find(s, digest);
	if (i && i->committing)
		i->unwanted = true;
	path = path_of(s->blobs_dir, digest);
	if (!path)
		return err_nomem(err);
	r = db_run(s, err, "DELETE FROM blobs WHERE digest=?", digest, NULL);
	if (r == 0 && !(i && i->committing))
		gc_discard(s, path);
	return r;
}

int blobs_list(struct store *s, const char *id, char ***ret, struct err *err)
{
	return db_strings(s, ret, err,
			  id ? "SELECT digest FROM blobs WHERE digest IN ("
			       "SELECT l.digest FROM manifest_layers l JOIN manifests m ON"
			       " m.digest=l.manifest WHERE m.image=?1 UNION"
			       " SELECT digest FROM manifests WHERE image=?1 UNION"
			       " SELECT target FROM names WHERE image=?1 UNION SELECT ?1)"
			     : "SELECT digest FROM blobs ORDER BY digest",
			  id, NULL);
}

/* ---- the store's own ---- */

static bool is_hex_name(const char *name, char digest[DIGEST_LEN + 1])
{
	if (strlen(name) != DIGEST_LEN - strlen("sha256:"))
		return false;
	snprintf(digest, DIGEST_LEN + 1, "sha256:%s", name);
	return digest_valid(digest);
}

static int blobs_on_ingest_name(struct store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->ingest_dir, name);
	char digest[DIGEST_LEN + 1];
	struct stat st;

	if (!path)
		return err_nomem(err);
	if (is_hex_name(name, digest)) {
		if (find(s, digest))
			return 0;
		if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size &&
		    st.st_mtime + INGEST_KEEP_S > time(NULL))
			return 0;
	}
	return remove_tree(path, err);
}

int ingest_expire(struct store *s, struct err *err)
{
	return store_each_name(s, s->ingest_dir, blobs_on_ingest_name, err);
}

/* A blob whose row did not get written, or whose removal was cut short. */
static int blobs_on_name(struct store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->blobs_dir, name);
	char digest[DIGEST_LEN + 1];
	int r = is_hex_name(name, digest) ? blob_has(s, digest, err) : 0;

	if (r != 0)
		return r < 0 ? r : 0;
	return path ? remove_tree(path, err) : err_nomem(err);
}

/* Rows without a file: what is not kept can be fetched. */
static int drop_rows(struct store *s, struct err *err)
{
	cleanup_strv char **all = NULL;
	int r = blobs_list(s, NULL, &all, err);

	for (char **d = all; r == 0 && *d; d++) {
		cleanup_free char *path = digest_valid(*d) ? path_of(s->blobs_dir, *d) : NULL;

		if (!path || access(path, F_OK) < 0)
			r = db_run(s, err, "DELETE FROM blobs WHERE digest=?", *d, NULL);
	}
	return r;
}

int blobs_open(struct store *s, struct err *err)
{
	int r = mkdir_p(s->ingest_dir, 0700, err);

	if (r == 0)
		r = mkdir_p(s->blobs_dir, 0700, err);
	if (r == 0)
		r = ingest_expire(s, err);
	if (r == 0)
		r = drop_rows(s, err);
	return r < 0 ? r : store_each_name(s, s->blobs_dir, blobs_on_name, err);
}

static int blobs_on_unowned_name(struct store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->ingest_dir, name);
	char digest[DIGEST_LEN + 1];

	if (!path)
		return err_nomem(err);
	if (is_hex_name(name, digest) && find(s, digest))
		return 0;
	return unlink(path) < 0 ? err_errno(err, -errno, "remove %s", path) : 0;
}

int ingest_drop_unowned(struct store *s, struct err *err)
{
	return store_each_name(s, s->ingest_dir, blobs_on_unowned_name, err);
}

uint64_t ingest_owned_bytes(const struct store *s)
{
	uint64_t n = 0;

	for (const struct ingest *i = s->ingests; i; i = i->next)
		n += space_of_fd(i->fd);
	return n;
}

/* Those that are becoming complete do so before the disk thread ends. */
void blobs_close(struct store *s)
{
	struct ingest *next;

	ingest_wait_close(s);
	for (struct ingest *i = s->ingests; i; i = next) {
		next = i->next;
		if (!i->committing)
			ingest_keep(i);
	}
}
