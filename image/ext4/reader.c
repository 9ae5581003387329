#include "image/ext4/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ext2fs/ext2_ext_attr.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>

#include "base/util.h"
#include "image/ext4/internal.h"

#define DESCRIPTOR ((uint32_t)sizeof(struct ext2_group_desc))
#define XATTRS_AT (INODE_SIZE - sizeof(((struct reader_inode *)0)->in_inode))
#define MAX_DIR_BLOCKS (EXTENTS_IN_INODE * EXT_INIT_MAX_LEN)

static int damaged(struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "the disk of a layer is damaged: %s", what);
}

static int read_at(struct reader *rd, void *buf, size_t n, uint64_t offset, struct err *err)
{
	for (size_t have = 0; have < n;) {
		ssize_t k = rd->read(rd->arg, (char *)buf + have, n - have, offset + have);

		if (k == 0)
			return damaged(err, "it is cut off");
		if (k < 0 && k != -EINTR)
			return err_errno(err, (int)k, "read the disk of a layer");
		have += k > 0 ? (size_t)k : 0;
	}
	return 0;
}

static int read_block(struct reader *rd, uint32_t block, uint8_t buf[EXT4_BLOCK], struct err *err)
{
	if (!block || block >= rd->blocks)
		return damaged(err, "block out of range");
	return read_at(rd, buf, EXT4_BLOCK, (uint64_t)block * EXT4_BLOCK, err);
}

int reader_init(struct reader *rd, reader_read_fn read, void *arg, uint64_t size, struct err *err)
{
	struct ext2_super_block sb;
	int r;

	*rd = (struct reader){ .read = read, .arg = arg };
	r = read_at(rd, &sb, sizeof(sb), 1024, err);
	if (r < 0)
		return r;
	if (sb.s_magic != EXT2_SUPER_MAGIC || sb.s_log_block_size != 2 ||
	    sb.s_inode_size != INODE_SIZE || !sb.s_blocks_per_group || !sb.s_inodes_per_group)
		return damaged(err, "it has no file system of ours");
	rd->blocks = sb.s_blocks_count;
	rd->inodes = sb.s_inodes_count;
	rd->inodes_per_group = sb.s_inodes_per_group;
	if (!rd->blocks || rd->blocks > EXT4_MAX_BLOCKS || (uint64_t)rd->blocks * EXT4_BLOCK > size)
		return damaged(err, "its file system is larger than its file");
	rd->groups = (rd->blocks - 1) / sb.s_blocks_per_group + 1;
	if (rd->groups > GDT_BLOCKS * EXT4_BLOCK / DESCRIPTOR ||
	    rd->inodes > (uint64_t)rd->groups * rd->inodes_per_group)
		return damaged(err, "number of groups");
	rd->descriptors = malloc((size_t)rd->groups * DESCRIPTOR);
	if (!rd->descriptors)
		return err_nomem(err);
	return read_at(rd, rd->descriptors, (size_t)rd->groups * DESCRIPTOR, EXT4_BLOCK, err);
}

void reader_fini(struct reader *rd)
{
	free(rd->descriptors);
	rd->descriptors = NULL;
}

static void take_inode(const struct ext2_inode_large *o, struct reader_inode *ret)
{
	*ret = (struct reader_inode){
		.mode = o->i_mode,
		.uid = o->i_uid | (uint32_t)o->osd2.linux2.l_i_uid_high << 16,
		.gid = o->i_gid | (uint32_t)o->osd2.linux2.l_i_gid_high << 16,
		.mtime = (int64_t)(int32_t)o->i_mtime + ((int64_t)(o->i_mtime_extra & 3) << 32),
		.mtime_ns = MIN_OF(o->i_mtime_extra >> 2, 999999999u),
		.implied = S_ISDIR(o->i_mode) && o->osd1.linux1.l_i_version == EXT4_IMPLIED,
		.xattr_block = o->i_file_acl,
	};
	memcpy(ret->block, o->i_block, sizeof(ret->block));
}

int reader_inode(struct reader *rd, uint32_t ino, struct reader_inode *ret, struct err *err)
{
	_Alignas(8) uint8_t buf[INODE_SIZE];
	struct ext2_group_desc gd;
	uint32_t group, at;
	uint64_t block;
	int r;

	if (!ino || ino > rd->inodes)
		return damaged(err, "number of an inode");
	group = (ino - 1) / rd->inodes_per_group;
	at = (ino - 1) % rd->inodes_per_group;
	memcpy(&gd, rd->descriptors + (size_t)group * DESCRIPTOR, sizeof(gd));
	block = (uint64_t)gd.bg_inode_table + at / INODES_PER_BLOCK;
	if (!gd.bg_inode_table || block >= rd->blocks)
		return damaged(err, "place of an inode");
	r = read_at(rd, buf, sizeof(buf), block * EXT4_BLOCK + at % INODES_PER_BLOCK * INODE_SIZE,
		    err);
	if (r < 0)
		return r;
	take_inode((const struct ext2_inode_large *)(const void *)buf, ret);
	memcpy(ret->in_inode, buf + XATTRS_AT, sizeof(ret->in_inode));
	return 0;
}

/* ---- directories ---- */

/* Hashed trees are read as what they look like to who knows no hashes: index blocks are one unused
 * entry behind "." and "..", or nothing else. */
static int dir_block(const uint8_t buf[EXT4_BLOCK], reader_entry_fn fn, void *arg, struct err *err)
{
	uint32_t at = 0;

	while (at < EXT4_BLOCK) {
		struct ext2_dir_entry_2 d;
		const char *name = (const char *)buf + at + 8;
		int r = 0;

		if (EXT4_BLOCK - at < 8)
			return damaged(err, "entry of a directory");
		memcpy(&d, buf + at, 8);
		if (d.rec_len < 8 || d.rec_len % 4 || d.rec_len > EXT4_BLOCK - at ||
		    d.name_len > d.rec_len - 8)
			return damaged(err, "entry of a directory");
		if (d.inode &&
		    (!d.name_len || memchr(name, '/', d.name_len) || memchr(name, 0, d.name_len)))
			return damaged(err, "name in a directory");
		if (d.inode && !(d.name_len <= 2 && !memcmp(name, "..", d.name_len)))
			r = fn(arg, d.inode, name, d.name_len, d.file_type, err);
		if (r < 0)
			return r;
		at += d.rec_len;
	}
	return 0;
}

int reader_dir(struct reader *rd, const struct reader_inode *dir, reader_entry_fn fn, void *arg,
	       struct err *err)
{
	const uint8_t *at = dir->block + sizeof(struct ext3_extent_header);
	uint8_t buf[EXT4_BLOCK];
	struct ext3_extent_header h;
	uint32_t n = 0;

	memcpy(&h, dir->block, sizeof(h));
	if (!S_ISDIR(dir->mode) || h.eh_magic != EXT3_EXT_MAGIC || h.eh_depth ||
	    h.eh_entries > EXTENTS_IN_INODE)
		return damaged(err, "place of a directory");
	for (unsigned k = 0; k < h.eh_entries; k++, at += sizeof(struct ext3_extent)) {
		struct ext3_extent x;

		memcpy(&x, at, sizeof(x));
		n += x.ee_len;
		if (x.ee_len > EXT_INIT_MAX_LEN || x.ee_start_hi || n > MAX_DIR_BLOCKS)
			return damaged(err, "place of a directory");
		for (uint32_t b = 0; b < x.ee_len; b++) {
			int r = read_block(rd, x.ee_start + b, buf, err);

			if (r == 0)
				r = dir_block(buf, fn, arg, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* ---- extended attributes ---- */

/* The list at `first` of `area`; offsets of values count from `base`. */
static int xattr_list(const uint8_t *area, size_t size, size_t first, size_t base,
		      reader_xattr_fn fn, void *arg, struct err *err)
{
	size_t at = first;

	for (;;) {
		struct ext2_ext_attr_entry e;
		int r;

		if (size - at < 4)
			return damaged(err, "extended attributes");
		if (!area[at] && !area[at + 1] && !area[at + 2] && !area[at + 3])
			return 0;
		if (size - at < sizeof(e))
			return damaged(err, "extended attributes");
		memcpy(&e, area + at, sizeof(e));
		if (EXT2_EXT_ATTR_LEN(e.e_name_len) > size - at || e.e_value_inum ||
		    e.e_value_offs > size - base || e.e_value_size > size - base - e.e_value_offs)
			return damaged(err, "extended attribute");
		r = fn(arg, e.e_name_index, (const char *)area + at + sizeof(e), e.e_name_len,
		       area + base + e.e_value_offs, e.e_value_size, err);
		if (r < 0)
			return r;
		at += EXT2_EXT_ATTR_LEN(e.e_name_len);
	}
}

int reader_xattrs(struct reader *rd, const struct reader_inode *i, reader_xattr_fn fn, void *arg,
		  struct err *err)
{
	uint8_t buf[EXT4_BLOCK];
	uint32_t magic;
	int r = 0;

	memcpy(&magic, i->in_inode, sizeof(magic));
	if (magic == EXT2_EXT_ATTR_MAGIC)
		r = xattr_list(i->in_inode, sizeof(i->in_inode), 4, 4, fn, arg, err);
	if (r < 0 || !i->xattr_block)
		return r;
	r = read_block(rd, i->xattr_block, buf, err);
	if (r < 0)
		return r;
	memcpy(&magic, buf, sizeof(magic));
	if (magic != EXT2_EXT_ATTR_MAGIC)
		return damaged(err, "block of extended attributes");
	return xattr_list(buf, sizeof(buf), sizeof(struct ext2_ext_attr_header), 0, fn, arg, err);
}
