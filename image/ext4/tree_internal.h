/* Shared by tree.c (names and entries), tree_layers.c (layers and whiteouts) and tree_xattr.c. */
#ifndef HUSK_IMAGE_EXT4_TREE_INTERNAL_H
#define HUSK_IMAGE_EXT4_TREE_INTERNAL_H

#include "image/ext4/arena.h"
#include "image/ext4/tree.h"

#define ENTRIES_PER_CHUNK (ARENA_CHUNK / (uint32_t)sizeof(struct tree_entry))

/* Of the index. entry: 0 = free, REMOVED = was in use. The hash saves looking at the entry. */
struct tree_slot {
	uint32_t hash, entry;
};

struct tree {
	struct tree_entry *chunks[TREE_MAX_ENTRIES / ENTRIES_PER_CHUNK + 1];
	uint32_t n; /* highest number given out; entry 0 is never used */
	struct tree_slot *slots;
	uint32_t n_slots, used_slots; /* n_slots is a power of two */
	uint64_t seed;		      /* of the hash: prepared names do not collide */
	size_t xattr_bytes;
	uint32_t dropped_xattrs;
	uint8_t layer;
	uint32_t ticks;
	struct arena arena;
	void (*dropped)(void *arg, struct tree_inode *file);
	void *dropped_arg;
};

/* The place of a path: parent directory and last component. */
struct walk {
	uint32_t parent;
	const char *name; /* len 0 = the root itself */
	size_t len;
};

uint32_t tree_lookup(struct tree *t, uint32_t parent, const char *name, size_t len);
int tree_inode_new(struct tree *t, uint16_t mode, struct tree_inode **ret,
		   struct err *err) must_check;
/* Puts a new entry for `inode` at the end of directory `parent`. */
int tree_attach(struct tree *t, uint32_t parent, const char *name, size_t len,
		struct tree_inode *inode, struct err *err) must_check;
/* Gives the entry a new, empty inode; other names of the old one keep that. */
int tree_replace(struct tree *t, uint32_t e, uint16_t mode, struct err *err) must_check;
/* Removes an entry that is in no list any more, and everything below it. */
void tree_remove(struct tree *t, uint32_t e);
/* A whiteout as overlayfs knows it: a character device 0:0. */
bool tree_is_whiteout(const struct tree_inode *i);
/* A directory as if it were new: 0755 root:root, and nothing of lower layers' attributes. */
void tree_reset_dir(struct tree_inode *i);
/* An entry called ".wh.NAME" or ".wh..wh..opq". */
int tree_whiteout(struct tree *t, const struct walk *w, struct err *err) must_check;

#endif
