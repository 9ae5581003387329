#include "image/layer/layer_tar.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/util.h"
#include "image/ext4/writer.h"
#include "image/ext4/tree.h"

#define MAX_MAJOR 0xfffu
#define MAX_MINOR 0xfffffu
#define MAX_ID 0xfffffffeu

struct source {
	layer_read_fn fn;
	void *arg;
	int failed; /* -errno of the stream, which libarchive cannot carry */
};

struct reader {
	struct archive *a;
	struct tree *t;
	struct ext4_writer *w;
	struct source src;
};

static la_ssize_t layer_tar_on_read(struct archive *a, void *arg, const void **ret)
{
	struct source *s = arg;
	ssize_t n = s->fn(s->arg, ret);

	if (n < 0) {
		s->failed = (int)n;
		archive_set_error(a, (int)-n, "read: %s", strerror((int)-n));
		return ARCHIVE_FATAL;
	}
	return n;
}

static void layer_tar_freep(struct archive **a)
{
	if (*a)
		archive_read_free(*a);
}
#define cleanup_archive cleanup_with(layer_tar_freep)

static int tar_error(struct reader *rd, struct err *err)
{
	const char *text = archive_error_string(rd->a);

	if (rd->src.failed)
		return err_errno(err, rd->src.failed, "read the layer");
	if (archive_errno(rd->a) == ENOMEM)
		return err_set(err, -ENOMEM, "tar: %s", text ? text : "out of memory");
	return err_set(err, -EBADMSG, "damaged tar: %s", text ? text : "no reason given");
}

/* The attributes of an entry, with their ranges checked. */
static int attr_of(struct archive_entry *e, struct tree_attr *a, struct err *err)
{
	int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
	uint64_t major = archive_entry_rdevmajor(e), minor = archive_entry_rdevminor(e);
	long ns = archive_entry_mtime_nsec(e);

	*a = (struct tree_attr){ .mode = (uint16_t)(archive_entry_perm(e) & 07777) };
	if (uid < 0 || uid > MAX_ID || gid < 0 || gid > MAX_ID)
		return err_set(err, -EPROTO, "user or group id out of range");
	a->uid = (uint32_t)uid;
	a->gid = (uint32_t)gid;
	a->mtime = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0;
	a->mtime_ns = ns < 0 || ns > 999999999 ? 0 : (uint32_t)ns;
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		a->mode |= S_IFREG;
		break;
	case AE_IFDIR:
		a->mode |= S_IFDIR;
		break;
	case AE_IFLNK:
		a->mode |= S_IFLNK;
		a->target = archive_entry_symlink(e);
		break;
	case AE_IFIFO:
		a->mode |= S_IFIFO;
		break;
	case AE_IFCHR:
	case AE_IFBLK:
		a->mode |= archive_entry_filetype(e) == AE_IFCHR ? S_IFCHR : S_IFBLK;
		if (major > MAX_MAJOR || minor > MAX_MINOR)
			return err_set(err, -EPROTO, "device number out of range");
		a->major = (uint32_t)major;
		a->minor = (uint32_t)minor;
		break;
	default:
		return err_set(err, -EPROTO, "entry of an unknown type");
	}
	return 0;
}

static int read_data(struct reader *rd, struct tree_inode *file, int64_t size, struct err *err)
{
	const void *buf;
	int64_t offset;
	size_t len;
	int k, r;

	if (size < 0)
		return err_set(err, -EPROTO, "negative size");
	ext4_writer_begin(rd->w);
	while ((k = archive_read_data_block(rd->a, &buf, &len, &offset)) != ARCHIVE_EOF) {
		if (k != ARCHIVE_OK)
			return tar_error(rd, err);
		if (offset < 0 || offset > size || len > (uint64_t)(size - offset))
			return err_set(err, -EPROTO, "data past the end of the file");
		r = ext4_writer_data(rd->w, (uint64_t)offset, buf, len, err);
		if (r < 0)
			return r;
	}
	return ext4_writer_end(rd->w, rd->t, file, (uint64_t)size, err);
}

static int read_xattrs(struct reader *rd, struct archive_entry *e, struct tree_inode *i,
		       struct err *err)
{
	const char *name;
	const void *value;
	size_t len;

	if (!archive_entry_xattr_reset(e))
		return 0;
	while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK) {
		int r = name ? tree_xattr(rd->t, i, name, value, len, err) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int read_entry(struct reader *rd, struct archive_entry *e, struct err *err)
{
	const char *path = archive_entry_pathname(e), *link = archive_entry_hardlink(e);
	struct tree_inode *i;
	struct tree_attr a;
	int r;

	if (!path)
		return err_set(err, -EPROTO, "entry with a name that is not UTF-8");
	if (link) {
		r = tree_link(rd->t, path, link, err);
		return r < 0 ? err_wrap(err, r, "\"%.200s\"", path) : 0;
	}
	r = attr_of(e, &a, err);
	if (r == 0)
		r = tree_add(rd->t, path, &a, &i, err);
	if (r == 0 && i)
		r = read_xattrs(rd, e, i, err);
	if (r == 0 && i && S_ISREG(i->mode))
		r = read_data(rd, i, archive_entry_size(e), err);
	return r < 0 ? err_wrap(err, r, "\"%.200s\"", path) : 0;
}

static void layer_tar_on_drop(void *arg, struct tree_inode *file)
{
	ext4_writer_drop(arg, file);
}

static int open_tar(struct source *s, struct archive **ret)
{
	cleanup_archive struct archive *a = archive_read_new();

	if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
	    archive_read_support_format_empty(a) != ARCHIVE_OK ||
	    archive_read_open(a, s, NULL, layer_tar_on_read, NULL) != ARCHIVE_OK) {
		if (s->failed)
			return s->failed;
		return a && archive_errno(a) != ENOMEM ? -EBADMSG : -ENOMEM;
	}
	*ret = take_ptr(&a);
	return 0;
}

static int drain(struct source *s)
{
	const void *p;
	ssize_t n;

	while ((n = s->fn(s->arg, &p)) > 0)
		;
	return (int)n;
}

/*
 * A warning of libarchive means that it left something out, and so a wrong file. Harmless is only
 * the one about a name that is not UTF-8: it is kept byte for byte, as we want it.
 */
static bool is_harmless(struct archive *a)
{
	const char *text = archive_error_string(a);

	return text && strstr(text, "can't be converted from UTF-8");
}

int layer_tar_read(layer_read_fn fn, void *arg, struct tree *t, struct ext4_writer *w,
		   struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	struct reader rd = { .t = t, .w = w, .src = { .fn = fn, .arg = arg } };
	struct archive_entry *e;
	unsigned n = 0;
	int k, r = open_tar(&rd.src, &a);

	if (r < 0)
		return err_set(err, r, "not a tar");
	rd.a = a;
	tree_on_drop(t, layer_tar_on_drop, w);
	while ((k = archive_read_next_header(a, &e)) == ARCHIVE_OK ||
	       (k == ARCHIVE_WARN && is_harmless(a))) {
		if (++n > LAYER_MAX_RECORDS)
			return err_set(err, -EFBIG, "more than %u entries in the tar",
				       LAYER_MAX_RECORDS);
		r = read_entry(&rd, e, err);
		if (r < 0)
			return r;
	}
	if (k == ARCHIVE_WARN)
		return err_set(err, -EPROTO, "\"%.200s\": %s", archive_entry_pathname(e),
			       archive_error_string(a));
	if (k != ARCHIVE_EOF)
		return tar_error(&rd, err);
	r = drain(&rd.src);
	return r < 0 ? err_errno(err, r, "read the layer") : 0;
}

/* ---- warm-up ---- */

/* A pax header with a name that is not ASCII, and its file. */
struct sample {
	char blocks[5][512];
	bool done;
};

static ssize_t layer_tar_on_sample(void *arg, const void **ret)
{
	struct sample *s = arg;

	if (s->done)
		return 0;
	s->done = true;
	*ret = s->blocks;
	return sizeof(s->blocks);
}

static void sample_header(char *h, const char *name, char type, unsigned size)
{
	unsigned sum = 0;

	memcpy(h, name, strlen(name));
	memcpy(h + 100, "0000644", 8);
	memcpy(h + 108, "0000000", 8);
	memcpy(h + 116, "0000000", 8);
	snprintf(h + 124, 12, "%011o", size);
	memcpy(h + 136, "00000000000", 12);
	memset(h + 148, ' ', 8);
	h[156] = type;
	memcpy(h + 257, "ustar\00000", 8);
	for (int k = 0; k < 512; k++)
		sum += (uint8_t)h[k];
	snprintf(h + 148, 8, "%06o", sum);
}

int layer_tar_prepare(struct err *err)
{
	static const char pax[] = "11 path=\303\244\n";
	cleanup_archive struct archive *a = NULL;
	struct sample s = { 0 };
	struct source src = { .fn = layer_tar_on_sample, .arg = &s };
	struct archive_entry *e;

	/*
	 * Names in pax headers are UTF-8; libarchive converts them to the locale's character set.
	 */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_set(err, -ENOTSUP, "no locale C.UTF-8 on this machine");
	sample_header(s.blocks[0], "x", 'x', sizeof(pax) - 1);
	memcpy(s.blocks[1], pax, sizeof(pax) - 1);
	sample_header(s.blocks[2], "x", '0', 0);
	if (open_tar(&src, &a) < 0 || archive_read_next_header(a, &e) != ARCHIVE_OK ||
	    !str_eq(archive_entry_pathname(e), "\303\244"))
		return err_set(err, -EIO, "libarchive does not read pax headers here: %s",
			       a ? archive_error_string(a) : "out of memory");
	return 0;
}
