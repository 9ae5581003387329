#include "image/worker/archive_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"

#define BLOCK 512u
#define NAME_FIELD 100u

/* A header as POSIX has it; `prefix` and `magic` are of ustar. */
struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], chksum[8], typeflag;
	char linkname[100], magic[8], uname[32], gname[32], devmajor[8], devminor[8], prefix[155],
		pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

/* What extended headers say about the entry that follows. "" and false: nothing. */
struct extended {
	char name[ARCHIVE_MAX_NAME + 1], link[ARCHIVE_MAX_NAME + 1];
	bool has_name, has_link, has_size, too_long;
	uint64_t size;
};

struct reader {
	archive_read_fn read;
	void *arg;
	uint64_t size, at;
	struct extended ext;
	struct archive_index *ix;
};

static int read_exactly(struct reader *r, void *buf, size_t n, uint64_t offset, struct err *err)
{
	for (size_t have = 0; have < n;) {
		ssize_t k = r->read(r->arg, (char *)buf + have, n - have, offset + have);

		if (k == 0)
			return err_set(err, -EBADMSG, "the archive is cut off");
		if (k < 0)
			return err_errno(err, (int)k, "read the archive");
		have += (size_t)k;
	}
	return 0;
}

/* ---- numbers and names ---- */

/* Octal digits with spaces or NULs around, or (GNU) a big-endian number with the top bit set. */
static int parse_number(const char *field, size_t n, uint64_t *ret)
{
	const uint8_t *p = (const uint8_t *)field;
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		if (p[0] != 0x80)
			return -EPROTO; /* negative, or more than 64 bits */
		for (i = 1; i < n; i++) {
			if (v >> 56)
				return -EPROTO;
			v = v << 8 | p[i];
		}
		*ret = v;
		return 0;
	}
	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
		if (v >> 60)
			return -EPROTO;
		v = v << 3 | (uint64_t)(p[i] - '0');
	}
	if (i < n && p[i] != ' ' && p[i] != '\0')
		return -EPROTO;
	*ret = v;
	return 0;
}

static bool checksum_ok(const struct header *h)
{
	const uint8_t *p = (const uint8_t *)h;
	uint64_t want;
	unsigned sum = 0;

	if (parse_number(h->chksum, sizeof(h->chksum), &want) < 0)
		return false;
	for (size_t i = 0; i < BLOCK; i++)
		sum += i >= offsetof(struct header, chksum) && i < offsetof(struct header, typeflag)
			       ? ' '
			       : p[i];
	return sum == want;
}

/* "./a//b/" -> "a/b", and "a/../b" -> "b": by the text alone, links are not followed. */
static void normalize(char *s)
{
	char *out = s, *start = s;

	for (char *p = s; *p;) {
		size_t n = strcspn(p, "/");
		bool up = n == 2 && p[0] == '.' && p[1] == '.';
		char *next = p + n + (p[n] == '/');

		if (up) {
			while (out > start && *--out != '/')
				;
		} else if (n && !(n == 1 && *p == '.')) {
			if (out > start)
				*out++ = '/';
			memmove(out, p, n);
			out += n;
		}
		p = next;
	}
	*out = '\0';
}

/* ---- extended headers ---- */

static void set_text(char *to, bool *has, struct extended *e, const char *text, size_t n)
{
	if (n > ARCHIVE_MAX_NAME || memchr(text, '\0', n)) {
		e->too_long = true;
		return;
	}
	memcpy(to, text, n);
	to[n] = '\0';
	*has = true;
}

/* Records "LENGTH KEY=VALUE\n". */
static int parse_pax(struct extended *e, const char *p, size_t n)
{
	while (n) {
		size_t len = 0, head = 0;
		const char *key, *eq, *end;
		uint64_t v = 0;

		for (; head < n && head < 8 && p[head] >= '0' && p[head] <= '9'; head++)
			len = len * 10 + (size_t)(p[head] - '0');
		if (head == 0 || head == n || p[head] != ' ' || len <= head + 1 || len > n ||
		    p[len - 1] != '\n')
			return -EPROTO;
		key = p + head + 1;
		end = p + len - 1;
		eq = memchr(key, '=', (size_t)(end - key));
		if (!eq)
			return -EPROTO;
		if (eq - key == 4 && memcmp(key, "path", 4) == 0) {
			set_text(e->name, &e->has_name, e, eq + 1, (size_t)(end - eq - 1));
		} else if (eq - key == 8 && memcmp(key, "linkpath", 8) == 0) {
			set_text(e->link, &e->has_link, e, eq + 1, (size_t)(end - eq - 1));
		} else if (eq - key == 4 && memcmp(key, "size", 4) == 0) {
			for (const char *d = eq + 1; d < end; d++) {
				if (*d < '0' || *d > '9' || v > UINT64_MAX / 100)
					return -EPROTO;
				v = v * 10 + (uint64_t)(*d - '0');
			}
			e->size = v;
			e->has_size = true;
		} else if (end - key > 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
			return -ENOTSUP; /* its bytes are not one piece */
		}
		p += len;
		n -= len;
	}
	return 0;
}

/* 'x', 'L', 'K': headers that say something about the next entry. */
static int read_extended(struct reader *r, char type, uint64_t size, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t n;
	int rc;

	if (size > ARCHIVE_MAX_PAX)
		return err_set(err, -EFBIG,
			       "a header of more than %zu KiB is no part of an archive of images",
			       ARCHIVE_MAX_PAX / KIB);
	text = malloc(size + 1);
	if (!text)
		return err_nomem(err);
	rc = read_exactly(r, text, size, r->at + BLOCK, err);
	if (rc < 0)
		return rc;
	text[size] = '\0';
	n = strlen(text);
	if (type == 'L')
		set_text(r->ext.name, &r->ext.has_name, &r->ext, text, n);
	else if (type == 'K')
		set_text(r->ext.link, &r->ext.has_link, &r->ext, text, n);
	else if (parse_pax(&r->ext, text, size) < 0)
		return err_set(err, -EPROTO, "an extended header cannot be understood");
	return 0;
}

/* ---- entries ---- */

static void entry_name(const struct reader *r, const struct header *h,
		       char out[ARCHIVE_MAX_NAME + 1])
{
	size_t n = 0, name = strnlen(h->name, NAME_FIELD);

	if (r->ext.has_name) {
		memcpy(out, r->ext.name, sizeof(r->ext.name));
		return;
	}
	/* GNU's own format has other fields where ustar has the prefix. */
	if (memcmp(h->magic, "ustar\0", 6) == 0) {
		n = strnlen(h->prefix, sizeof(h->prefix));
		memcpy(out, h->prefix, n);
		if (n)
			out[n++] = '/';
	}
	memcpy(out + n, h->name, name);
	out[n + name] = '\0';
}

/* A symbolic link is relative to its directory, a hard link to the root. */
static char *entry_target(const struct reader *r, const struct header *h, const char *name)
{
	char link[ARCHIVE_MAX_NAME + 1];
	const char *slash = strrchr(name, '/');
	size_t n = strnlen(h->linkname, NAME_FIELD);
	char *t;

	if (r->ext.has_link) {
		memcpy(link, r->ext.link, sizeof(link));
	} else {
		memcpy(link, h->linkname, n);
		link[n] = '\0';
	}
	t = h->typeflag == '2' && slash && *link != '/'
		    ? str_fmt("%.*s/%s", (int)(slash - name), name, link)
		    : strdup(link);
	if (t)
		normalize(t);
	return t;
}

static int add_entry(struct reader *r, const struct header *h, uint64_t size, struct err *err)
{
	struct archive_index *ix = r->ix;
	struct archive_entry *e;
	char name[ARCHIVE_MAX_NAME + 1];
	bool link = h->typeflag == '1' || h->typeflag == '2';

	if (r->ext.too_long || (!link && h->typeflag != '0' && h->typeflag != '\0'))
		return 0;
	entry_name(r, h, name);
	normalize(name);
	if (ix->n == ARCHIVE_MAX_ENTRIES)
		return err_set(err, -EFBIG, "the archive has more than %u files",
			       ARCHIVE_MAX_ENTRIES);
	if (ix->n == ix->cap) {
		size_t cap = ix->cap ? 2 * ix->cap : 64;

		e = reallocarray(ix->entries, cap, sizeof(*e));
		if (!e)
			return err_nomem(err);
		ix->entries = e;
		ix->cap = cap;
	}
	e = &ix->entries[ix->n];
	*e = (struct archive_entry){ .name = strdup(name),
				     .offset = r->at + BLOCK,
				     .size = link ? 0 : size };
	if (link)
		e->target = entry_target(r, h, name);
	ix->n++;
	return e->name && (!link || e->target) ? 0 : err_nomem(err);
}

/* One header and what belongs to it. 1: there is more, 0: the end. */
static int read_one(struct reader *r, struct err *err)
{
	static const struct header zero;
	struct header h;
	uint64_t size = 0, blocks;
	int rc;

	/* The end is two blocks of zeros, or simply the end of the file. */
	if (r->at == r->size && r->at > 0)
		return 0;
	if (r->size - r->at < BLOCK)
		return err_set(err, r->at ? -EBADMSG : -EPROTO,
			       r->at ? "the archive is cut off" : "this is no tar archive");
	rc = read_exactly(r, &h, sizeof(h), r->at, err);
	if (rc < 0)
		return rc;
	if (memcmp(&h, &zero, sizeof(h)) == 0)
		return 0;
	if (!checksum_ok(&h) || parse_number(h.size, sizeof(h.size), &size) < 0)
		return err_set(err, -EPROTO,
			       r->at ? "the archive is damaged at byte %llu"
				     : "this is no tar archive",
			       (unsigned long long)r->at);
	if (r->ext.has_size && h.typeflag != 'x' && h.typeflag != 'g')
		size = r->ext.size;
	/* Links and special files have no bytes, whatever their size field says. */
	if (h.typeflag >= '1' && h.typeflag <= '6')
		size = 0;
	if (size > r->size - r->at - BLOCK)
		return err_set(err, -EBADMSG, "the archive is cut off");
	if (h.typeflag == 'x' || h.typeflag == 'L' || h.typeflag == 'K') {
		rc = read_extended(r, h.typeflag, size, err);
	} else if (h.typeflag != 'g') {
		rc = h.typeflag == 'S' ? err_set(err, -ENOTSUP, "the archive has sparse files")
				       : add_entry(r, &h, size, err);
		r->ext = (struct extended){ 0 };
	}
	blocks = (size + BLOCK - 1) / BLOCK;
	r->at += MIN_OF((1 + blocks) * BLOCK, r->size - r->at);
	return rc < 0 ? rc : 1;
}

static int archive_index_by_name(const void *a, const void *b)
{
	const struct archive_entry *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x->offset > y->offset) - (x->offset < y->offset);
}

int archive_index_read(archive_read_fn read, void *arg, uint64_t size, struct archive_index *ret,
		       struct err *err)
{
	struct archive_index ix = { 0 };
	struct reader r = { .read = read, .arg = arg, .size = size, .ix = &ix };
	/* Entries of other kinds are read, but not kept. */
	uint64_t headers = 0;
	int rc = 1;

	while (rc > 0) {
		rc = headers++ > 4ull * ARCHIVE_MAX_ENTRIES
			     ? err_set(err, -EFBIG, "the archive has too many entries")
			     : read_one(&r, err);
	}
	if (rc < 0) {
		archive_index_fini(&ix);
		return rc;
	}
	if (ix.n)
		qsort(ix.entries, ix.n, sizeof(*ix.entries), archive_index_by_name);
	*ret = ix;
	return 0;
}

void archive_index_fini(struct archive_index *ix)
{
	for (size_t i = 0; i < ix->n; i++) {
		free(ix->entries[i].name);
		free(ix->entries[i].target);
	}
	free(ix->entries);
	*ix = (struct archive_index){ 0 };
}

/* The last entry with that name. */
static const struct archive_entry *lookup(const struct archive_index *ix, const char *name)
{
	size_t lo = 0, hi = ix->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(ix->entries[mid].name, name) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && str_eq(ix->entries[lo - 1].name, name) ? &ix->entries[lo - 1] : NULL;
}

const struct archive_entry *archive_find(const struct archive_index *ix, const char *name)
{
	cleanup_free char *plain = strdup(name);
	const struct archive_entry *e;

	if (!plain)
		return NULL;
	normalize(plain);
	e = lookup(ix, plain);
	for (int i = 0; e && e->target; i++)
		e = i < ARCHIVE_MAX_LINKS ? lookup(ix, e->target) : NULL;
	return e;
}
