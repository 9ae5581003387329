/*
 * Writes an ext4 file system into a file in one pass: file data as it comes, everything else at the
 * end. Memory does not depend on the size of the data. The file grows as needed; at the end it is
 * truncated to a multiple of the block size. One thread.
 *
 * Layout, in blocks of 4 KiB, in the order of their offsets (nothing is ever moved): *    0
 * superblock | 1..8 group descriptors | file data, extent blocks, long symlinks | *     attribute
 * blocks | directories | inode tables | block bitmaps | inode bitmaps
 *
 * flex_bg allows tables and bitmaps to be anywhere, and sparse_super2 with no backups keeps the
 * data area free of holes, so that every file is one extent per 128 MiB. Number and size of the
 * groups are chosen last. No journal, no lost+found. Metadata has checksums; data has none, since a
 * layer is verified as a whole by its digest. Directories of more than a block are hashed trees,
 * packed full. Files of up to 128 bytes are in their inodes. Times, UUID and hash seed depend on
 * the input only: the same input gives the same bytes.
 */
#ifndef HUSK_IMAGE_EXT4_WRITER_H
#define HUSK_IMAGE_EXT4_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

struct tree;
struct tree_inode;
struct ext4_writer;

#define EXT4_BLOCK 4096u
#define EXT4_MAX_BLOCKS ((uint32_t)(64 * GIB / EXT4_BLOCK))
#define EXT4_MAX_FILE ((uint64_t)16 << 40) /* 2^32 logical blocks */
#define EXT4_MAX_EXTENTS 400000u	   /* of one file */

/* fd is borrowed: an empty regular file, open for writing. */
int ext4_writer_new(int fd, const uint8_t uuid[16], struct ext4_writer **ret,
		    struct err *err) must_check;
void ext4_writer_free(struct ext4_writer *w);

/*
 * The data of one regular file: begin, any number of `data` with growing offsets (gaps and blocks
 * of zeros become holes), end with its size. -EFBIG, -ENOSPC and other errors of write().
 */
void ext4_writer_begin(struct ext4_writer *w);
int ext4_writer_data(struct ext4_writer *w, uint64_t offset, const void *data, size_t len,
		     struct err *err) must_check;
int ext4_writer_end(struct ext4_writer *w, struct tree *t, struct tree_inode *file, uint64_t size,
		    struct err *err) must_check;
/* The blocks of `file` are not needed any more (it was replaced). */
void ext4_writer_drop(struct ext4_writer *w, const struct tree_inode *file);

/*
 * Everything else; the file is complete then, and on its way to the disk, but not synced.
 * *ret_size: its length.
 */
int ext4_writer_finish(struct ext4_writer *w, struct tree *t, uint64_t *ret_size,
		       struct err *err) must_check;

#endif
