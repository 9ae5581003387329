#include "image/store/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread/work.h"
#include "base/util.h"
#include "image/ext4/scratch.h"
#include "image/image.h"
#include "image/store/disk.h"
#include "image/store/internal.h"

#define TEMPLATE "scratch-1.ext4" /* another number when the format changes */

int scratch_prepare(struct store *s, struct err *err)
{
	cleanup_free char *tmp = str_fmt("%s/scratch", s->tmp_dir);
	cleanup_fd int fd = -1;
	int r;

	s->scratch = str_fmt("%s/" TEMPLATE, s->dir);
	if (!s->scratch || !tmp)
		return err_nomem(err);
	if (access(s->scratch, F_OK) == 0)
		return 0;
	fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "%s", tmp);
	r = ext4_make_scratch(fd, IMAGE_SCRATCH_SIZE, err);
	if (r == 0 && (fsync(fd) < 0 || rename(tmp, s->scratch) < 0))
		r = err_errno(err, -errno, "%s", s->scratch);
	if (r < 0)
		(void)unlink(tmp);
	return r;
}

static int copy_range(int from, int to, off_t at, off_t end)
{
	char buf[16 * KIB];

	while (at < end) {
		size_t want = MIN_OF((size_t)(end - at), sizeof(buf));
		ssize_t n = pread(from, buf, want, at), w;

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		for (ssize_t k = 0; k < n; k += w) {
			w = pwrite(to, buf + k, (size_t)(n - k), at + k);
			if (w < 0)
				return -errno;
		}
		at += n;
	}
	return 0;
}

/* Only what is there: some 40 blocks, so that plain reads and writes beat anything clever. */
static int copy_sparse(int from, int to)
{
	struct stat st;
	off_t data = 0, hole;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
		return -errno;
	while ((data = lseek(from, data, SEEK_DATA)) >= 0) {
		int r;

		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_range(from, to, data, hole);
		if (r < 0)
			return r;
		data = hole;
	}
	return errno == ENXIO ? 0 : -errno;
}

struct copy {
	struct work_job job;
	const char *template; /* the store's */
	char *path;
	wait_fn done;
	void *arg;
};

static int make_dir_of(const char *path, struct err *err)
{
	cleanup_free char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!dir)
		return err_nomem(err);
	if (!slash || slash == dir)
		return 0;
	*slash = '\0';
	return mkdir_p(dir, 0700, err);
}

static int scratch_work(struct work_job *j, struct err *err)
{
	const struct copy *c = container_of(j, struct copy, job);
	cleanup_fd int from = open(c->template, O_RDONLY | O_CLOEXEC);
	const char *path = c->path;
	cleanup_fd int to = -1;
	int r;

	if (from < 0)
		return err_errno(err, -errno, "%s", c->template);
	r = make_dir_of(path, err);
	if (r < 0)
		return r;
	to = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return err_errno(err, -errno, "%s", path);
	r = copy_sparse(from, to);
	if (r < 0) {
		(void)unlink(path);
		return err_errno(err, r, "make the scratch disk %s", path);
	}
	return 0;
}

static void scratch_work_done(struct work_job *j, int code, const struct err *err)
{
	struct copy *c = container_of(j, struct copy, job);

	c->done(c->arg, code, err);
	free(c->path);
	free(c);
}

int scratch_create(struct store *s, const char *path, wait_fn done, void *arg, struct err *err)
{
	struct copy *c = calloc(1, sizeof(*c));

	if (c)
		c->path = strdup(path);
	if (!c || !c->path) {
		free(c);
		return err_nomem(err);
	}
	c->template = s->scratch;
	c->done = done;
	c->arg = arg;
	c->job.work = scratch_work;
	c->job.done = scratch_work_done;
	work_add(s->disk, &c->job);
	return 0;
}

void scratch_discard(struct store *s, const char *path)
{
	disk_remove(s->disk, path);
}
