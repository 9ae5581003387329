/*
 * The file tree of one layer, or of several that become one, in memory, as the tars describe it:
 * names, attributes, hard links, whiteouts in overlayfs form. File data is not here: the owner
 * (ext4_writer) notes in the inodes where it is. Names are not trusted: every path is normalised
 * and checked here. One thread; no I/O but that of a spool.
 *
 * Rules for names: slashes in front, "./", doubled and trailing slashes are dropped; ".." is
 * refused. A name may pass through a symbolic link that leads to a directory of this tree, as seen
 * from its root. A link that leads elsewhere, or anything else that is not a directory, is
 * refused; an older layer's is replaced by a directory, as for a runtime that has each layer in a
 * directory of its own.
 * A later entry replaces an earlier one with the same name, except that a directory that replaces a
 * directory keeps its children. Parents that the tar does not name are made as 0755 root:root, with
 * time 0, and marked `implied`: their attributes are those of the lower layers' directory, where
 * there is one (tree_only_inherited).
 *
 * Memory: TREE_MAX_ENTRIES entries need more than a worker may have. With a spool, all but the
 * first few MiB of them are in a file; without one, everything is in memory.
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
#define TREE_MAX_LINK_STEPS 40u		/* symbolic links that one name may pass through */
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
	bool opaque;	/* a directory that hides what lower layers have in it */
	bool implied;	/* a directory that no tar has named, and that lower layers may have */
	uint32_t nlink; /* names; of a directory: directories in it, without "." and ".." */
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
	uint8_t layer;	/* the last layer that has named it, or something below it */
	uint8_t pruned; /* the last layer that has hidden what older layers have below it */
	uint8_t named;	/* the last layer that has named the directory itself; 0 = none */
	bool removed;
	bool kept; /* by tree_only_inherited */
};

/* What the tar says about an entry. */
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
/* To be called before the first entry: `fd` (borrowed) is a file with no data from `offset` on. The
 * owner truncates it again, after the last use of the tree but tree_free. */
void tree_spool(struct tree *t, int fd, uint64_t offset);

/*
 * Adds an entry, or replaces the one with that name. `dropped` is called for each regular file that
 * loses its last name, so that the owner can free its blocks. *ret: the inode; NULL when the name
 * was an OCI whiteout (".wh.NAME", ".wh..wh..opq"), which has none. -EPROTO: a name against the
 * rules. -EFBIG: over a limit. -ENOMEM.
 */
int tree_add(struct tree *t, const char *path, const struct tree_attr *a, struct tree_inode **ret,
	     struct err *err) must_check;
/*
 * The entries from here on are those of the next layer, on top of the others. Its whiteouts remove
 * what older layers have, and stay as whiteouts for the layers below all of these. An opaque
 * directory loses what older layers have in it. A directory that replaces something else is opaque.
 * -EFBIG: too many layers.
 */
int tree_next_layer(struct tree *t, struct err *err) must_check;
/*
 * A directory of this layer that is not named by it: an older layer's keeps its attributes. For
 * what is not read from a tar.
 */
int tree_imply(struct tree *t, const char *path, struct err *err) must_check;
/*
 * Leaves only the directories that the last layer in which they are does not name, but an older one
 * does, with that one's attributes, and their parents. As one more layer on top of these it gives
 * directories the attributes they should have. Directories that would look the same anyway are left
 * out, and so is the root for its time alone. The last change of all. Returns their number, without
 * parents.
 */
uint32_t tree_only_inherited(struct tree *t);
/* What later layers know about this one. */
struct tree_facts {
	uint32_t implied; /* directories that it has and does not name, without the root */
	bool root_named;
	bool root_unusual; /* named, and it has more to say of it than 0755 root:root and a time */
};
void tree_facts(struct tree *t, struct tree_facts *ret);
/* There is no layer below these: drops whiteouts and marks of opacity. The last change of all. */
void tree_is_bottom(struct tree *t);

/* A hard link to an entry of this tree that is not a directory. -EPROTO also when there is no such
 * entry. */
int tree_link(struct tree *t, const char *path, const char *target, struct err *err) must_check;
/*
 * An extended attribute by its full name. Those that Linux does not know, and those that no layer
 * may set (trusted.overlay.*), are left out and counted. POSIX ACLs are given as setxattr takes
 * them, and kept as ext4 has them. -EFBIG: over a limit. -EPROTO: a damaged ACL.
 */
int tree_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value,
	       size_t len, struct err *err) must_check;

/* The same as it is in ext4: index of the name's first part, and the rest of it. Unknown ones are
 * left out. */
int tree_xattr_raw(struct tree *t, struct tree_inode *i, uint8_t index, const char *name,
		   size_t name_len, const void *value, size_t len, struct err *err) must_check;

/* Gives an opaque directory the attribute by which overlayfs knows it. */
int tree_xattr_opaque(struct tree *t, struct tree_inode *dir, struct err *err) must_check;

void tree_on_drop(struct tree *t, void (*dropped)(void *arg, struct tree_inode *file), void *arg);
/* Memory that lives as long as the tree, zeros, at most 1 MiB. -ENOMEM, -EFBIG, -ENOSPC. */
int tree_alloc(struct tree *t, size_t n, void **ret, struct err *err) must_check;
struct tree_entry *tree_entry(struct tree *t, uint32_t number);
uint32_t tree_entries(const struct tree *t); /* numbers are 1 .. this; some may be `removed` */
uint32_t tree_dropped_xattrs(const struct tree *t);
/*
 * To be called for each step of a walk over the tree: drops spooled pages from memory now and then.
 */
void tree_tick(struct tree *t);
/* Frees the index: no name may be looked up from here on. */
void tree_close_index(struct tree *t);
/* Looks up a normalised path; 0 = none. For tests. */
uint32_t tree_find(struct tree *t, const char *path);

#endif
