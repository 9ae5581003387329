/*
 * `inherit`: reads the directories of all disks of an image and makes one more disk, which gives
 * those that a layer's tar does not name the attributes that they have in lower layers.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "image/digest.h"
#include "image/ext4/inherit.h"
#include "image/ext4/reader.h"
#include "image/ext4/tree.h"
#include "image/ext4/writer.h"
#include "image/limits.h"
#include "image/wire.h"
#include "image/worker/confine.h"
#include "image/worker/worker.h"

#define MAX_CPU_S 300

static ssize_t inherit_on_read(void *arg, void *buf, size_t n, uint64_t offset)
{
	ssize_t k = pread(*(const int *)arg, buf, n, (off_t)offset);

	return k < 0 ? -errno : k;
}

static int read_disk(struct tree *t, int fd, struct err *err)
{
	struct reader rd;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "look at the disk of a layer");
	r = reader_init(&rd, inherit_on_read, &fd, (uint64_t)st.st_size, err);
	if (r == 0)
		r = inherit_disk(t, &rd, err);
	reader_fini(&rd);
	return r;
}

static int write_disk(struct tree *t, const uint8_t uuid[16], Worker__UnpackReport *rep,
		      struct err *err)
{
	struct ext4_writer *w = NULL;
	int r;

	rep->entries = tree_only_inherited(t);
	/* Of no use; the spool is cut off all the same. */
	if (!rep->entries)
		return ftruncate(WORKER_OUT_FD, 0) < 0
			       ? err_errno(err, -errno, "set the length of the disk's file")
			       : 0;
	r = ext4_writer_new(WORKER_OUT_FD, uuid, &w, err);
	if (r == 0)
		r = ext4_writer_finish(w, t, &rep->file_bytes, err);
	if (r == 0 && fdatasync(WORKER_OUT_FD) < 0)
		r = err_errno(err, -errno, "sync the disk's file");
	ext4_writer_free(w);
	return r;
}

static int inherit(size_t n, const uint8_t uuid[16], Worker__UnpackReport *rep, struct err *err)
{
	struct tree *t = NULL;
	int r = tree_new(&t);

	if (r < 0)
		return err_nomem(err);
	rep->disks = (uint32_t)n;
	tree_spool(t, WORKER_OUT_FD, WORKER_SPOOL_OFFSET);
	for (size_t k = 0; r == 0 && k < n; k++) {
		r = k ? tree_next_layer(t, err) : 0;
		if (r == 0)
			r = read_disk(t, WORKER_LAYER_FD(k), err);
		if (r < 0)
			r = err_wrap(err, r, "disk %zu of %zu", k + 1, n);
	}
	if (r == 0)
		r = write_disk(t, uuid, rep, err);
	tree_free(t);
	return r;
}

int worker_inherit(const char *disks, const char *id)
{
	const struct confine_limits limits = { .memory = WORKER_MAX_ADDRESSES,
					       .file = WORKER_SPOOL_OFFSET + WORKER_SPOOL_MAX,
					       .cpu_s = MAX_CPU_S,
					       .data = WORKER_MAX_DATA };
	Worker__UnpackReport rep = WORKER__UNPACK_REPORT__INIT;
	struct err err = { 0 };
	uint8_t uuid[16];
	uint64_t n;
	int r = 0;

	if (str_to_u64(disks, 1, IMAGE_MAX_LAYERS, &n) < 0 || digest_to_uuid(id, uuid) < 0)
		r = err_set(&err, -EINVAL, "inherit DISKS DIGEST");
	if (r == 0)
		r = confine_common(&limits, &err);
	if (r == 0)
		r = confine_build(&err);
	if (r == 0)
		r = inherit((size_t)n, uuid, &rep, &err);
	return wire_write_unpack_report(WORKER_REPORT_FD, &rep, r, &err) < 0;
}
