#include "image/ext4/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>

#include "base/util.h"
#include "image/ext4/internal.h"
#include "image/ext4/tree.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ext4 is little-endian, and so are we");

/* ---- file data ---- */

void ext4_writer_begin(struct ext4_writer *w)
{
	w->n_extents = 0;
	w->part_open = false;
	w->file_end = 0;
}

static int extent_add(struct ext4_writer *w, uint32_t logical, uint32_t block, struct err *err)
{
	struct extent *e = w->n_extents ? &w->extents[w->n_extents - 1] : NULL;

	if (e && e->logical + e->len == logical && e->block + e->len == block &&
	    e->len < EXT_INIT_MAX_LEN) {
		e->len++;
		return 0;
	}
	if (w->n_extents == w->cap_extents) {
		size_t cap = w->cap_extents ? w->cap_extents * 2 : 64;

		if (w->n_extents >= EXT4_MAX_EXTENTS)
			return err_set(err, -EFBIG, "file with more than %u extents",
				       EXT4_MAX_EXTENTS);
		e = realloc(w->extents, cap * sizeof(*e));
		if (!e)
			return err_nomem(err);
		w->extents = e;
		w->cap_extents = cap;
	}
	w->extents[w->n_extents++] = (struct extent){ logical, block, 1 };
	return 0;
}

static bool all_zero(const uint8_t *p)
{
	uint64_t first;

	memcpy(&first, p, sizeof(first));
	return !first && !memcmp(p, p + 8, EXT4_BLOCK - 8);
}

static int put_block(struct ext4_writer *w, uint32_t logical, const uint8_t *data, struct err *err)
{
	uint32_t block;
	uint8_t *p;
	int r;

	if (all_zero(data))
		return 0;
	r = out_block(&w->out, &p, &block, err);
	if (r < 0)
		return r;
	memcpy(p, data, EXT4_BLOCK);
	return extent_add(w, logical, block, err);
}

static int close_part(struct ext4_writer *w, struct err *err)
{
	if (!w->part_open)
		return 0;
	w->part_open = false;
	return put_block(w, w->part_logical, w->part, err);
}

int ext4_writer_data(struct ext4_writer *w, uint64_t offset, const void *data, size_t len,
		     struct err *err)
{
	const uint8_t *p = data;

	if (offset < w->file_end)
		return err_set(err, -EPROTO, "file data out of order");
	if (offset > EXT4_MAX_FILE || len > EXT4_MAX_FILE - offset)
		return err_set(err, -EFBIG, "file of more than %llu TiB",
			       (unsigned long long)(EXT4_MAX_FILE >> 40));
	w->file_end = offset + len;
	while (len) {
		uint32_t logical = (uint32_t)(offset / EXT4_BLOCK);
		size_t in = offset % EXT4_BLOCK, n = MIN_OF(len, EXT4_BLOCK - in);
		int r = 0;

		if (w->part_open && w->part_logical != logical)
			r = close_part(w, err);
		if (r < 0)
			return r;
		if (n == EXT4_BLOCK) {
			r = put_block(w, logical, p, err);
		} else {
			if (!w->part_open)
				memset(w->part, 0, EXT4_BLOCK);
			w->part_open = true;
			w->part_logical = logical;
			memcpy(w->part + in, p, n);
			if (in + n == EXT4_BLOCK)
				r = close_part(w, err);
		}
		if (r < 0)
			return r;
		offset += n;
		p += n;
		len -= n;
	}
	return 0;
}

/* ---- extent trees ---- */

static void extent_header(void *at, unsigned entries, unsigned max, unsigned depth)
{
	*(struct ext3_extent_header *)(void *)at = (struct ext3_extent_header){
		.eh_magic = EXT3_EXT_MAGIC,
		.eh_entries = (uint16_t)entries,
		.eh_max = (uint16_t)max,
		.eh_depth = (uint16_t)depth,
	};
}

static void put_extents(void *at, const struct extent *x, size_t n)
{
	struct ext3_extent *e =
		(struct ext3_extent *)(void *)((char *)at + sizeof(struct ext3_extent_header));

	for (size_t k = 0; k < n; k++)
		e[k] = (struct ext3_extent){ .ee_block = x[k].logical,
					     .ee_len = (uint16_t)x[k].len,
					     .ee_start = x[k].block };
}

/* `at`: i_block or an extent block. Recurses to the depth of the tree, at most three. */
static int sum_below(struct ext4_writer *w, const void *at, uint32_t seed, struct err *err)
{
	const struct ext3_extent_header *h = at;
	const struct ext3_extent_idx *x = (const void *)(h + 1);
	uint8_t buf[EXT4_BLOCK];
	int r = 0;

	for (unsigned k = 0; h->eh_depth && k < h->eh_entries && r == 0; k++) {
		uint32_t sum;

		r = out_read(&w->out, x[k].ei_leaf, buf, err);
		if (r == 0)
			r = sum_below(w, buf, seed, err);
		if (r < 0)
			break;
		sum = ext4_crc(seed, buf, EXT4_BLOCK - sizeof(sum));
		memcpy(buf + EXT4_BLOCK - sizeof(sum), &sum, sizeof(sum));
		r = out_rewrite(&w->out, x[k].ei_leaf, buf, err);
	}
	return r;
}

int extents_sum(struct ext4_writer *w, const void *iblock, uint32_t ino, struct err *err)
{
	return sum_below(w, iblock, ext4_inode_seed(w, ino), err);
}

/*
 * Writes one level of the tree: `n` entries of `x` into blocks of PER_BLOCK; x[0..] becomes the
 * list of those blocks. Returns their number.
 */
static int extent_level(struct ext4_writer *w, struct extent *x, size_t n, unsigned depth,
			size_t *ret_n, struct err *err)
{
	size_t made = 0;

	for (size_t k = 0; k < n; k += EXTENTS_PER_BLOCK) {
		size_t here = MIN_OF(n - k, EXTENTS_PER_BLOCK);
		uint32_t block;
		uint8_t *p;
		int r = out_block(&w->out, &p, &block, err);

		if (r < 0)
			return r;
		memset(p, 0, EXT4_BLOCK);
		extent_header(p, (unsigned)here, EXTENTS_PER_BLOCK, depth);
		if (!depth) {
			put_extents(p, x + k, here);
		} else {
			struct ext3_extent_idx *e = (struct ext3_extent_idx *)(void *)(p + 12);

			for (size_t j = 0; j < here; j++)
				e[j] = (struct ext3_extent_idx){ .ei_block = x[k + j].logical,
								 .ei_leaf = x[k + j].block };
		}
		x[made++] = (struct extent){ x[k].logical, block, 1 };
	}
	*ret_n = made;
	return 0;
}

int extents_to_iblock(struct ext4_writer *w, struct extent *x, size_t n, void *iblock,
		      uint32_t *meta_blocks, struct err *err)
{
	unsigned depth = 0;

	memset(iblock, 0, IBLOCK_SIZE);
	*meta_blocks = 0;
	while (n > EXTENTS_IN_INODE) {
		int r = extent_level(w, x, n, depth, &n, err);

		if (r < 0)
			return r;
		*meta_blocks += (uint32_t)n;
		depth++;
	}
	extent_header(iblock, (unsigned)n, EXTENTS_IN_INODE, depth);
	if (!depth) {
		put_extents(iblock, x, n);
	} else {
		struct ext3_extent_idx *e = (struct ext3_extent_idx *)(void *)((char *)iblock + 12);

		for (size_t k = 0; k < n; k++)
			e[k] = (struct ext3_extent_idx){ .ei_block = x[k].logical,
							 .ei_leaf = x[k].block };
	}
	return 0;
}

/* A small file that is not all zeros: its bytes go into the tree. 1 = done. */
static int keep_inline(struct ext4_writer *w, struct tree *t, struct tree_inode *file,
		       uint64_t size, struct err *err)
{
	int r;

	if (size > INLINE_MAX || !w->part_open || all_zero(w->part))
		return 0;
	r = tree_alloc(t, size, &file->file.spill, err);
	if (r < 0)
		return r;
	memcpy(file->file.spill, w->part, size);
	file->size = size;
	w->part_open = false;
	return 1;
}

/*
 * All blocks of a file, with those of its extent tree, are consecutive, because nothing else is
 * written between begin and end. For a file of one extent from its start, first block and number of
 * blocks say everything; others keep their 60 bytes of i_block until the inode is written.
 */
int ext4_writer_end(struct ext4_writer *w, struct tree *t, struct tree_inode *file, uint64_t size,
		    struct err *err)
{
	uint32_t data = 0, meta;
	int r;

	if (size > EXT4_MAX_FILE || size < w->file_end)
		return err_set(err, -EPROTO, "size of a file does not fit its data");
	file->file.spill = NULL;
	file->file.n_blocks = 0;
	r = keep_inline(w, t, file, size, err);
	if (r)
		return r < 0 ? r : 0;
	r = close_part(w, err);
	if (r < 0)
		return r;
	file->size = size;
	for (size_t k = 0; k < w->n_extents; k++)
		data += w->extents[k].len;
	file->file.n_blocks = data;
	if (!w->n_extents)
		return 0;
	file->file.block = w->extents[0].block;
	if (w->n_extents == 1 && !w->extents[0].logical)
		return 0;
	r = tree_alloc(t, IBLOCK_SIZE, &file->file.spill, err);
	if (r < 0)
		return r;
	r = extents_to_iblock(w, w->extents, w->n_extents, file->file.spill, &meta, err);
	if (r < 0)
		return r;
	file->file.n_blocks += meta;
	return 0;
}

void ext4_writer_drop(struct ext4_writer *w, const struct tree_inode *file)
{
	struct extent *x = w->n_dropped ? &w->dropped[w->n_dropped - 1] : NULL;

	if (!file->file.n_blocks)
		return;
	if (x && x->block + x->len == file->file.block) {
		x->len += file->file.n_blocks;
		return;
	}
	if (w->n_dropped == w->cap_dropped) {
		size_t cap = w->cap_dropped ? w->cap_dropped * 2 : 16;

		x = realloc(w->dropped, cap * sizeof(*x));
		if (!x) {
			w->failed = -ENOMEM; /* some blocks belong to no file now */
			return;
		}
		w->dropped = x;
		w->cap_dropped = cap;
	}
	w->dropped[w->n_dropped++] = (struct extent){ 0, file->file.block, file->file.n_blocks };
}

int ext4_writer_new(int fd, const uint8_t uuid[16], struct ext4_writer **ret, struct err *err)
{
	struct ext4_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return err_nomem(err);
	if (out_init(&w->out, fd, FIRST_DATA_BLOCK) < 0) {
		free(w);
		return err_nomem(err);
	}
	memcpy(w->uuid, uuid, 16);
	w->seed = ext4_crc(~0u, uuid, 16);
	*ret = w;
	return 0;
}

void ext4_writer_free(struct ext4_writer *w)
{
	if (!w)
		return;
	out_fini(&w->out);
	free(w->extents);
	free(w->dropped);
	free(w);
}
