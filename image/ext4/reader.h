/*
 * Reads directories and their attributes out of the disk of a layer, as writer.h makes it: one
 * superblock, extents in the inodes, attributes in inodes and blocks. Whoever wrote the file is not
 * trusted, and its checksums are not looked at: every number is compared with the file's bounds,
 * and what is against them is -EBADMSG. Data of files is not read. One thread, no state but the
 * reader's.
 */
#ifndef HUSK_IMAGE_EXT4_READER_H
#define HUSK_IMAGE_EXT4_READER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define READER_ROOT 2u /* inode of the root directory */

/* As pread(): bytes, 0 at the end, -errno. */
typedef ssize_t (*reader_read_fn)(void *arg, void *buf, size_t n, uint64_t offset);

struct reader {
	reader_read_fn read;
	void *arg;
	uint32_t blocks, inodes, inodes_per_group, groups;
	uint8_t *descriptors; /* of all groups */
};

struct reader_inode {
	uint16_t mode;
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_ns;
	bool implied;
	uint8_t block[60];
	uint32_t xattr_block;
	uint8_t in_inode[96]; /* attributes; an area without any is zeros */
};

/* 0, or -errno which ends the walk. */
typedef int (*reader_entry_fn)(void *arg, uint32_t ino, const char *name, size_t len, uint8_t type,
			       struct err *err);
typedef int (*reader_xattr_fn)(void *arg, uint8_t index, const char *name, size_t name_len,
			       const void *value, size_t len, struct err *err);

/* size: of the file, in bytes. The caller calls reader_fini also when this fails. */
int reader_init(struct reader *rd, reader_read_fn read, void *arg, uint64_t size,
		struct err *err) must_check;
void reader_fini(struct reader *rd);
int reader_inode(struct reader *rd, uint32_t ino, struct reader_inode *ret,
		 struct err *err) must_check;
/* All entries but "." and "..". Names have 1 to 255 bytes, no '/' and no NUL; `type` as of ext4. */
int reader_dir(struct reader *rd, const struct reader_inode *dir, reader_entry_fn fn, void *arg,
	       struct err *err) must_check;
int reader_xattrs(struct reader *rd, const struct reader_inode *i, reader_xattr_fn fn, void *arg,
		  struct err *err) must_check;

#endif
