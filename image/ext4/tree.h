/*
 * The file tree of one layer, or of several that become one, in memory, as the tars describe it:
 * names, attributes, hard links, whiteouts in overlayfs form. No file data: the owner (ext4_writer)
 * keeps where it put them. Names come from strangers: every path is normalised and checked here.
 * One thread; no I/O but that of a spool.
 *
 * Rules for names: slashes in front, "./", doubled and trailing slashes are dropped; ".." is
 * refused. A name may pass through a symbolic link that leads to a directory of this tree, seen
 * from its root; one that leads elsewhere, and anything else that is no directory, is refused. A
 * later entry replaces an earlier one of the same name, except that a directory over a directory
 * keeps its children. Parents that the tar does not name are made as 0755 root:root, with time 0,
 * and marked `implied`.
 *
 * Memory: TREE_MAX_ENTRIES entries need more than a worker may have. With a spool, a file lends
 * its place to all but the first few MiB of them; without, all stays in memory.
 */
#ifndef HUSK_IMAGE_EXT4_TREE_H
#define HUSK_IMAGE_EXT4_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/compiler.h"
#include "base/err.h"

#define TREE_MAX_ENTRIES 1000000u
#define TREE_MAX_NAME 255u
#define TREE_MAX_PATH 4095u
#define TREE_MAX_DEPTH 512u
#define TREE_MAX_LINKS 65000u /* of one file: the limit of ext4 */
#define TREE_MAX_XATTRS 4000u /* bytes of all names and values of a file: one ext4 block */
#define TREE_MAX_XATTR_TOTAL (16 * MIB) /* of the whole tree */
#define TREE_MAX_LINK_STEPS 40u		/* symbolic links on the way of one name */
#define TREE_MAX_LAYERS 255u

struct tree;

struct tree_xattr {
	struct tree_xattr *next;
	uint32_t block;	  /* the owner's, in the first of a list */
	uint8_t index;	  /* ext4 name index: 1 user., 2 and 3 ACLs, 4 trusted., 6 security. */
	uint8_t name_len; /* after the prefix */
	uint16_t value_len;
	char data[]; /* name, then value */
};

struct tree_inode {
	uint16_t mode;	/* with S_IFMT */
	bool opaque;	/* a directory that hides what lower layers have below it */
	bool implied;	/* a directory that no tar has named */
	uint32_t nlink; /* names; for directories: entries of directories in it, without "." and
			   ".." */
	uint32_t uid, gid;
	uint32_t mtime_ns;
	uint32_t ino; /* the owner's */
	int64_t mtime;
	uint64_t size; /* regular files and symbolic links */
	union {
		struct {
			uint32_t first, last;	  /* entries, 0 = none */
			uint32_t block, n_blocks; /* the owner's */
		} dir;
		struct {
			uint32_t major, minor;
		} dev;
		struct {
			char *target;	/* NUL-terminated */
			uint32_t block; /* the owner's */
		} link;
		struct {
			void *spill;	   /* the owner's, in a tree_alloc or NULL */
			uint32_t block;	   /* the owner's */
			uint32_t n_blocks; /* the owner's */
		} file;
	};
	struct tree_xattr *xattrs; /* sorted by index, name length, name */
};

struct tree_entry {
	const char *name;
	struct tree_inode *inode;
	uint32_t parent;
	uint32_t next; /* in its directory, in the order of the tar; 0 = last */
	uint8_t name_len;
	uint8_t layer;	/* the last one that has named it, or something below it */
	uint8_t pruned; /* the layer that has hidden what older ones had below it */
	bool removed;
};

/* What the tar says of an entry. */
struct tree_attr {
	uint16_t mode; /* permissions and S_IFMT */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_ns;
	uint32_t major, minor;
	const char *target; /* symbolic links */
};

#define TREE_ROOT 1u /* number of the root directory's entry */

int tree_new(struct tree **ret) must_check;
void tree_free(struct tree *t);
/* Before the first entry: `fd` (borrowed) is a file that has nothing from `offset` on. It is the
 * owner's to cut it off again, after the last use of the tree but tree_free. */
void tree_spool(struct tree *t, int fd, uint64_t offset);

/*
 * Adds an entry, or replaces the one of that name. `dropped` is called for each regular file whose
 * last name has gone, so that the owner can take its blocks back. *ret: the inode; NULL when the
 * name was an OCI whiteout (".wh.NAME", ".wh..wh..opq"), which has no inode of its own to be
 * filled. -EPROTO: a name against the rules. -EFBIG: over a limit. -ENOMEM.
 */
int tree_add(struct tree *t, const char *path, const struct tree_attr *a, struct tree_inode **ret,
	     struct err *err) must_check;
/*
 * What comes now is the next layer, on top of what is there. Its whiteouts take away what older
 * layers have, and stay as whiteouts for the layers that are below all of these; an opaque
 * directory loses what older layers have in it; a directory over something else is opaque.
 * -EFBIG: too many layers.
 */
int tree_next_layer(struct tree *t, struct err *err) must_check;
/* There is no layer below: the whiteouts and marks of opacity are dropped. Last of all changes. */
void tree_is_bottom(struct tree *t);

/* A hard link to an entry of this tree that is no directory. -EPROTO also when there is no such
 * entry. */
int tree_link(struct tree *t, const char *path, const char *target, struct err *err) must_check;
/*
 * An extended attribute by its full name. Those that mean nothing to Linux, or that a layer has no
 * business to set (trusted.overlay.*), are left out and counted. POSIX ACLs come in the form of
 * the system call and become that of ext4. -EFBIG: over a limit. -EPROTO: an ACL that is none.
 */
int tree_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value,
	       size_t len, struct err *err) must_check;

/* Gives an opaque directory the attribute that says so to overlayfs. */
int tree_xattr_opaque(struct tree *t, struct tree_inode *dir, struct err *err) must_check;

void tree_on_drop(struct tree *t, void (*dropped)(void *arg, struct tree_inode *file), void *arg);
/* Memory that lives as long as the tree, zeros, at most 1 MiB. -ENOMEM, -EFBIG, -ENOSPC. */
int tree_alloc(struct tree *t, size_t n, void **ret, struct err *err) must_check;
struct tree_entry *tree_entry(struct tree *t, uint32_t number);
uint32_t tree_entries(const struct tree *t); /* numbers are 1 .. this; some may be `removed` */
uint32_t tree_dropped_xattrs(const struct tree *t);
/* To be called for each step of a walk over the tree: lets go of spooled pages now and then. */
void tree_tick(struct tree *t);
/* No names will be looked up any more: gives memory back. */
void tree_close_index(struct tree *t);
/* Looks up a normalised path; 0 = none. For tests. */
uint32_t tree_find(struct tree *t, const char *path);

#endif
