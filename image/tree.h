/*
 * The file tree of one layer, in memory, as the tar describes it: names, attributes, hard links,
 * whiteouts in overlayfs form. No file data: the owner (ext4_writer) keeps where it put them.
 * Names come from strangers: every path is normalised and checked here. One thread, no I/O.
 *
 * Rules for names: "./" in front, doubled and trailing slashes are dropped; absolute names, ".."
 * and names that pass through something that is no directory are refused; a later entry replaces an
 * earlier one of the same name, except that a directory over a directory keeps its children.
 * Parents that the tar does not name are made as 0755 root:root, with time 0.
 */
#ifndef HUSK_IMAGE_TREE_H
#define HUSK_IMAGE_TREE_H

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

struct tree;

struct tree_xattr {
	struct tree_xattr *next;
	uint8_t index;	  /* ext4 name index: 1 user., 4 trusted., 6 security. */
	uint8_t name_len; /* after the prefix */
	uint16_t value_len;
	char data[]; /* name, then value */
};

struct tree_inode {
	uint16_t mode;	/* with S_IFMT */
	bool opaque;	/* a directory that hides what lower layers have below it */
	uint32_t nlink; /* names; for directories: entries of directories in it, without "." and
			   ".." */
	uint32_t uid, gid;
	uint32_t mtime_ns;
	int64_t mtime;
	uint64_t size; /* regular files */
	union {
		struct {
			uint32_t first, last; /* entries, 0 = none */
		} dir;
		struct {
			uint32_t major, minor;
		} dev;
		char *target; /* symbolic links, NUL-terminated */
		struct {
			void *spill;	   /* the owner's, in a tree_alloc or NULL */
			uint32_t block;	   /* the owner's */
			uint32_t n_blocks; /* the owner's */
		} file;
	};
	struct tree_xattr *xattrs; /* sorted by index, name length, name */
	uint32_t ino;		   /* the owner's */
};

struct tree_entry {
	const char *name;
	struct tree_inode *inode;
	uint32_t parent;
	uint32_t next; /* in its directory, in the order of the tar; 0 = last */
	uint32_t hash_next;
	uint8_t name_len;
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

/*
 * Adds an entry, or replaces the one of that name. `dropped` is called for each regular file whose
 * last name has gone, so that the owner can take its blocks back. *ret: the inode; NULL when the
 * name was an OCI whiteout (".wh.NAME", ".wh..wh..opq"), which has no inode of its own to be
 * filled. -EPROTO: a name against the rules. -EFBIG: over a limit. -ENOMEM.
 */
int tree_add(struct tree *t, const char *path, const struct tree_attr *a, struct tree_inode **ret,
	     struct err *err) must_check;
/* A hard link to an entry of this tree that is no directory. -EPROTO also when there is no such
 * entry. */
int tree_link(struct tree *t, const char *path, const char *target, struct err *err) must_check;
/*
 * An extended attribute by its full name. Those that mean nothing to Linux, or that a layer has no
 * business to set (trusted.overlay.*), are left out. -EFBIG: over a limit.
 */
int tree_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value,
	       size_t len, struct err *err) must_check;

/* Gives an opaque directory the attribute that says so to overlayfs. */
int tree_xattr_opaque(struct tree *t, struct tree_inode *dir, struct err *err) must_check;

void tree_on_drop(struct tree *t, void (*dropped)(void *arg, struct tree_inode *file), void *arg);
/* Memory that lives as long as the tree. NULL: none. */
void *tree_alloc(struct tree *t, size_t n) must_check;
struct tree_entry *tree_entry(struct tree *t, uint32_t number);
uint32_t tree_entries(const struct tree *t); /* numbers are 1 .. this; some may be `removed` */
/* Looks up a normalised path; 0 = none. For tests. */
uint32_t tree_find(struct tree *t, const char *path);

#endif
