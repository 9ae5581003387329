/*
 * Which files a tar has, and where in it their bytes are: ustar, GNU long names, pax. For archives
 * of images, whose files are then read by name and offset. Nothing is ever unpacked, and names are
 * only compared. The tar is not trusted. Pure but for the caller's read function; one thread.
 */
#ifndef HUSK_IMAGE_WORKER_ARCHIVE_INDEX_H
#define HUSK_IMAGE_WORKER_ARCHIVE_INDEX_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define ARCHIVE_MAX_ENTRIES 65536u
#define ARCHIVE_MAX_NAME 512u	   /* no file of an image's archive has a longer name: left out */
#define ARCHIVE_MAX_PAX (64 * KIB) /* one extended header */
#define ARCHIVE_MAX_LINKS 8	   /* followed one after the other */

struct archive_entry {
	char *name;   /* without "./", doubled and trailing slashes */
	char *target; /* of a link: normalised, from the root of the archive; else NULL */
	uint64_t offset, size;
};

struct archive_index {
	struct archive_entry *entries; /* sorted by name once read */
	size_t n, cap;
};

/* pread(): bytes, 0 at the end, -errno. */
typedef ssize_t (*archive_read_fn)(void *arg, void *buf, size_t n, uint64_t offset);

/* size: of the tar. -EPROTO: not a tar, or damaged; -EBADMSG: it is cut off; -EFBIG; -ENOMEM.
 * Of two entries with one name the later one counts, as for tar. */
int archive_index_read(archive_read_fn read, void *arg, uint64_t size, struct archive_index *ret,
		       struct err *err) must_check;
void archive_index_fini(struct archive_index *ix);
/* A regular file, through links. NULL: there is none. */
const struct archive_entry *archive_find(const struct archive_index *ix, const char *name);

#endif
