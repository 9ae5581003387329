/* Extended attributes, in the form of ext4. */
#include <errno.h>
#include <string.h>

#include <endian.h>

#include "base/util.h"
#include "image/ext4/tree_internal.h"

/* linux/posix_acl_xattr.h: the form of getxattr and of tars. */
#define ACL_XATTR_VERSION 2u
#define ACL_XATTR_ENTRY 8u /* tag, perm: 16 bits; id: 32 bits */
/* fs/ext4/acl.h: the form on disk; only named users and groups have an id. */
#define ACL_EXT4_VERSION 1u
#define ACL_MAX_ENTRIES 255u
#define ACL_USER 0x02u
#define ACL_GROUP 0x08u
#define ACL_MASK 0x10u

enum {
	IX_NONE = 0,
	IX_USER = 1,
	IX_ACL_ACCESS = 2,
	IX_ACL_DEFAULT = 3,
	IX_TRUSTED = 4,
	IX_SECURITY = 6
};

static int xattr_index(const char **name)
{
	static const struct {
		const char *prefix;
		int index;
	} known[] = { { "user.", IX_USER },
		      { "trusted.", IX_TRUSTED },
		      { "security.", IX_SECURITY } };

	if (str_starts(*name, "trusted.overlay."))
		return IX_NONE;
	if (str_eq(*name, "system.posix_acl_access") || str_eq(*name, "system.posix_acl_default")) {
		int index = str_ends(*name, "access") ? IX_ACL_ACCESS : IX_ACL_DEFAULT;

		*name = "";
		return index;
	}
	for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
		if (str_starts(*name, known[k].prefix)) {
			*name += strlen(known[k].prefix);
			return **name ? known[k].index : IX_NONE;
		}
	}
	return IX_NONE;
}

static int xattr_cmp(const struct tree_xattr *a, const struct tree_xattr *b)
{
	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_len != b->name_len)
		return a->name_len - b->name_len;
	return memcmp(a->data, b->data, a->name_len);
}

static int xattr_put(struct tree *t, struct tree_inode *i, int index, const char *name,
		     const void *value, size_t len, struct err *err)
{
	size_t name_len = strlen(name), total = 0;
	struct tree_xattr *x, **at;
	int r, c = -1;
	void *p;

	for (x = i->xattrs; x; x = x->next)
		total += sizeof(*x) + 16 + x->name_len + x->value_len;
	if (len > TREE_MAX_XATTRS || total + len + name_len + sizeof(*x) + 16 > TREE_MAX_XATTRS)
		return err_set(err, -EFBIG, "more than %u bytes of extended attributes",
			       TREE_MAX_XATTRS);
	t->xattr_bytes += len + name_len + sizeof(*x);
	if (t->xattr_bytes > TREE_MAX_XATTR_TOTAL)
		return err_set(err, -EFBIG, "more than %zu MiB of extended attributes in all",
			       TREE_MAX_XATTR_TOTAL / MIB);
	r = tree_alloc(t, sizeof(*x) + name_len + len, &p, err);
	if (r < 0)
		return r;
	x = p;
	x->index = (uint8_t)index;
	x->name_len = (uint8_t)name_len;
	x->value_len = (uint16_t)len;
	memcpy(x->data, name, name_len);
	if (len)
		memcpy(x->data + name_len, value, len);
	for (at = &i->xattrs; *at && (c = xattr_cmp(*at, x)) < 0; at = &(*at)->next)
		;
	x->next = *at && c == 0 ? (*at)->next : *at;
	*at = x;
	return 0;
}

static uint16_t le16_at(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static uint32_t le32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

/* Tags are in the kernel's order, each of the three basic ones once, with a mask if there are named
 * users or groups. */
static bool acl_is_valid(const uint8_t *p, size_t n)
{
	static const uint8_t order[] = { 0x01, ACL_USER, 0x04, ACL_GROUP, ACL_MASK, 0x20 };
	unsigned seen[ARRAY_SIZE(order)] = { 0 }, at = 0;

	for (size_t k = 0; k < n; k++) {
		unsigned tag = le16_at(p + k * ACL_XATTR_ENTRY), c = 0;

		while (c < ARRAY_SIZE(order) && order[c] != tag)
			c++;
		if (c == ARRAY_SIZE(order) || c < at || le16_at(p + k * ACL_XATTR_ENTRY + 2) > 7)
			return false;
		at = c;
		seen[c]++;
	}
	return seen[0] == 1 && seen[2] == 1 && seen[5] == 1 && seen[4] <= 1 &&
	       (seen[4] || (!seen[1] && !seen[3]));
}

static int acl_put(struct tree *t, struct tree_inode *i, int index, const uint8_t *v, size_t len,
		   struct err *err)
{
	uint8_t out[4 + ACL_MAX_ENTRIES * 8];
	size_t n = len < 4 ? 0 : (len - 4) / ACL_XATTR_ENTRY, used = 4;
	uint32_t version = htole32(ACL_EXT4_VERSION);

	if (len < 4 || (len - 4) % ACL_XATTR_ENTRY || n > ACL_MAX_ENTRIES ||
	    le32_at(v) != ACL_XATTR_VERSION || (n && !acl_is_valid(v + 4, n)))
		return err_set(err, -EPROTO, "damaged POSIX ACL");
	/* Three entries say no more than the mode. */
	if (!n || (index == IX_ACL_ACCESS && n == 3))
		return 0;
	memcpy(out, &version, 4);
	for (size_t k = 0; k < n; k++) {
		const uint8_t *e = v + 4 + k * ACL_XATTR_ENTRY;
		unsigned tag = le16_at(e);
		size_t size = tag == ACL_USER || tag == ACL_GROUP ? 8 : 4;

		memcpy(out + used, e, size);
		used += size;
	}
	return xattr_put(t, i, index, "", out, used, err);
}

int tree_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value,
	       size_t len, struct err *err)
{
	int index = xattr_index(&name);

	if (!index) {
		t->dropped_xattrs++;
		return 0;
	}
	if (strnlen(name, 256) > 255)
		return err_set(err, -EPROTO,
			       "extended attribute with a name of more than 255 bytes");
	if (index == IX_ACL_ACCESS || index == IX_ACL_DEFAULT)
		return acl_put(t, i, index, value, len, err);
	return xattr_put(t, i, index, name, value, len, err);
}

int tree_xattr_raw(struct tree *t, struct tree_inode *i, uint8_t index, const char *name,
		   size_t name_len, const void *value, size_t len, struct err *err)
{
	char text[256];

	if (index != IX_USER && index != IX_ACL_ACCESS && index != IX_ACL_DEFAULT &&
	    index != IX_TRUSTED && index != IX_SECURITY)
		return 0;
	if (name_len >= sizeof(text) || memchr(name, 0, name_len))
		return err_set(err, -EBADMSG, "extended attribute with a bad name");
	memcpy(text, name, name_len);
	text[name_len] = '\0';
	return xattr_put(t, i, index, text, value, len, err);
}

int tree_xattr_opaque(struct tree *t, struct tree_inode *dir, struct err *err)
{
	return xattr_put(t, dir, IX_TRUSTED, "overlay.opaque", "y", 1, err);
}
