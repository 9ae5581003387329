#include "image/job/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "base/util.h"
#include "image/media.h"
#include "image/reference.h"
#include "image/store/blobs.h"
#include "image/store/content.h"
#include "image/store/images.h"

#define NAME_MAX_LEN 99u
#define MAX_MEMBERS (IMAGE_SAVE_MAX * (IMAGE_MAX_LAYERS + 2u) + 3u)
#define TAIL_BLOCKS 2u

/* One file of the tar: bytes in memory, or a blob. */
struct member {
	char name[NAME_MAX_LEN + 1];
	char digest[DIGEST_LEN + 1]; /* blobs; "" = bytes */
	char *bytes;		     /* owned */
	uint64_t size;
};

struct image_save {
	struct store *store;
	struct content *contents[IMAGE_SAVE_MAX]; /* protect the blobs */
	size_t n_contents;
	struct member *members;
	size_t n, cap;
	uint64_t total;
	/* reading */
	size_t at;	 /* member */
	uint64_t offset; /* in its header, bytes and padding */
	int fd;		 /* of the blob that is being read */
	EVP_MD_CTX *hash;
};

void archive_header(uint8_t out[ARCHIVE_BLOCK], const char *name, uint64_t size)
{
	char *h = (char *)out;
	unsigned sum = 0;

	memset(h, 0, ARCHIVE_BLOCK);
	(void)snprintf(h, 100, "%s", name);
	memcpy(h + 100, "0000444\0000000000\0000000000\000", 24);
	if (size >> 33) { /* GNU: more than 11 octal digits hold */
		out[124] = 0x80;
		for (int i = 0; i < 8; i++)
			out[128 + i] = (uint8_t)(size >> (56 - 8 * i));
	} else {
		(void)snprintf(h + 124, 12, "%011llo", (unsigned long long)size);
	}
	memcpy(h + 136, "00000000000", 12);
	memset(h + 148, ' ', 8);
	h[156] = '0';
	memcpy(h + 257, "ustar\00000", 8);
	for (size_t i = 0; i < ARCHIVE_BLOCK; i++)
		sum += out[i];
	(void)snprintf(h + 148, 8, "%06o", sum);
}

static uint64_t padded(uint64_t size)
{
	return (size + ARCHIVE_BLOCK - 1) / ARCHIVE_BLOCK * ARCHIVE_BLOCK;
}

/* ---- what goes in ---- */

/* Takes over `bytes`. A file of that name that is there already is not added again. */
static int add(struct image_save *v, const char *name, const char *digest, char *bytes,
	       uint64_t size, struct err *err)
{
	struct member *m;

	for (size_t k = 0; k < v->n; k++) {
		if (str_eq(v->members[k].name, name)) {
			free(bytes);
			return 0;
		}
	}
	if (v->n == v->cap) {
		size_t cap = v->cap ? 2 * v->cap : 32;

		m = v->n < MAX_MEMBERS ? reallocarray(v->members, cap, sizeof(*m)) : NULL;
		if (!m) {
			free(bytes);
			return err_nomem(err);
		}
		v->members = m;
		v->cap = cap;
	}
	m = &v->members[v->n++];
	*m = (struct member){ .bytes = bytes, .size = size };
	(void)snprintf(m->name, sizeof(m->name), "%s", name);
	(void)snprintf(m->digest, sizeof(m->digest), "%s", digest ? digest : "");
	v->total += ARCHIVE_BLOCK + padded(size);
	return 0;
}

static void blob_name(const char *digest, char out[NAME_MAX_LEN + 1])
{
	(void)snprintf(out, NAME_MAX_LEN + 1, "blobs/sha256/%s", digest + strlen("sha256:"));
}

static int add_blob(struct image_save *v, const char *digest, uint64_t size, struct err *err)
{
	char name[NAME_MAX_LEN + 1];

	blob_name(digest, name);
	return add(v, name, digest, NULL, size, err);
}

static int add_bytes(struct image_save *v, const char *digest, const char *bytes, size_t len,
		     struct err *err)
{
	char name[NAME_MAX_LEN + 1];
	char *copy = malloc(len + 1);

	if (!copy)
		return err_nomem(err);
	memcpy(copy, bytes, len);
	blob_name(digest, name);
	return add(v, name, NULL, copy, len, err);
}

/* Takes over `j`. */
static int add_json(struct image_save *v, const char *name, json_t *j, struct err *err)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	if (!text)
		return err_nomem(err);
	return add(v, name, NULL, text, strlen(text), err);
}

static int not_kept(const char *ref, struct err *err)
{
	return err_set(
		err, -ENODATA,
		"the compressed layers of %.200s are not kept here (images.keep_blobs is off, "
		"or 'husk prune --blobs' removed them): remove the image and pull it again",
		ref);
}

/* What a name stands for; the texts are borrowed. */
struct target {
	const char *type, *digest;
	size_t len;
};

/* The media type of an index, if it leads to the image's manifest; else NULL. */
static const char *index_type(const struct content *c, const char *bytes, size_t len)
{
	static const char *const types[] = { MEDIA_INDEX_OCI, MEDIA_INDEX_DOCKER };
	json_t *j = json_loadb(bytes, len, 0, NULL), *d;
	const char *said = json_string_value(json_object_get(j, "mediaType"));
	const char *type = NULL;
	size_t k;

	json_array_foreach (json_object_get(j, "manifests"), k, d)
		if (str_eq(json_string_value(json_object_get(d, "digest")), c->manifest_digest))
			type = types[said && str_eq(said, MEDIA_INDEX_DOCKER)];
	json_decref(j);
	return type;
}

/*
 * The index that the image was pulled by, too, where it is kept: so the name has the same digest
 * after a load. Other platforms are in it by name only, as in an archive that `docker save` makes.
 * *ret: the index then, else the manifest.
 */
static int add_index(struct image_save *v, const struct content *c, struct target *ret,
		     struct err *err)
{
	cleanup_free char *bytes = NULL;
	const char *type;
	size_t len = 0;
	int r;

	*ret = (struct target){ c->manifest.media_type, c->manifest_digest, c->manifest_len };
	if (!*c->target || str_eq(c->target, c->manifest_digest))
		return 0;
	r = blob_read(v->store, c->target, &bytes, &len, err);
	if (r == -ENOENT || r == -EBADMSG)
		return 0;
	type = r == 0 ? index_type(c, bytes, len) : NULL;
	if (!type)
		return r;
	*ret = (struct target){ type, c->target, len };
	return add_bytes(v, c->target, bytes, len, err);
}

static int add_content(struct image_save *v, const struct content *c, const char *ref,
		       struct err *err)
{
	cleanup_free char *config = NULL;
	size_t len = 0;
	int r = blob_read(v->store, c->id, &config, &len, err);

	if (r == 0)
		r = add_bytes(v, c->id, config, len, err);
	if (r == 0)
		r = add_bytes(v, c->manifest_digest, c->manifest_bytes, c->manifest_len, err);
	for (size_t k = 0; r == 0 && k < c->manifest.n_layers; k++) {
		const struct manifest_layer *l = &c->manifest.layers[k];
		int kept = blob_has(v->store, l->digest, err);

		if (kept == 0)
			return not_kept(ref, err);
		r = kept < 0 ? kept : add_blob(v, l->digest, l->size, err);
	}
	return r;
}

/* "docker.io/library/busybox:latest" -> "busybox:latest", as Docker writes it. */
static const char *familiar(const char *name)
{
	if (str_starts(name, "docker.io/library/"))
		return name + strlen("docker.io/library/");
	return str_starts(name, "docker.io/") ? name + strlen("docker.io/") : name;
}

static json_t *oci_descriptor(const struct target *t, const char *name)
{
	json_t *j = json_pack("{s:s, s:s, s:I}", "mediaType", t->type, "digest", t->digest, "size",
			      (json_int_t)t->len);
	struct reference ref;

	if (j && *name && reference_parse(name, &ref, NULL) == 0)
		(void)json_object_set_new(j, "annotations",
					  json_pack("{s:s, s:s*}", "io.containerd.image.name", name,
						    "org.opencontainers.image.ref.name",
						    *ref.tag ? ref.tag : NULL));
	return j;
}

/* An entry of Docker's manifest.json; the names of one image are in one entry. */
static int docker_entry(json_t *list, const struct content *c, const char *name)
{
	char config[NAME_MAX_LEN + 1], layer[NAME_MAX_LEN + 1];
	json_t *j, *layers = json_array(), *tags = NULL;
	struct reference ref;
	size_t i;

	blob_name(c->id, config);
	json_array_foreach (list, i, j) {
		if (str_eq(json_string_value(json_object_get(j, "Config")), config))
			tags = json_object_get(j, "RepoTags");
	}
	if (tags) {
		json_decref(layers);
	} else {
		for (size_t k = 0; k < c->manifest.n_layers; k++) {
			blob_name(c->manifest.layers[k].digest, layer);
			(void)json_array_append_new(layers, json_string(layer));
		}
		tags = json_array();
		j = json_pack("{s:s, s:o, s:o}", "Config", config, "RepoTags", tags, "Layers",
			      layers);
		if (!j || json_array_append_new(list, j) < 0)
			return -ENOMEM;
	}
	if (*name && reference_parse(name, &ref, NULL) == 0 && *ref.tag && !*ref.digest)
		(void)json_array_append_new(tags, json_string(familiar(name)));
	return 0;
}

static int add_all(struct image_save *v, char *const *refs, size_t n, enum image_archive format,
		   struct err *err)
{
	json_t *manifests = json_array(), *docker = json_array();
	int r = manifests && docker ? 0 : err_nomem(err);

	for (size_t k = 0; r == 0 && k < n; k++) {
		char id[DIGEST_LEN + 1], name[REFERENCE_MAX + 1];
		struct target target;
		struct content *c;

		r = images_resolve(v->store, refs[k], id, name, err);
		if (r == -ENOENT)
			err_set(err, r, "there is no image '%.200s'; 'husk images' lists them",
				refs[k]);
		if (r == 0)
			r = content_open(v->store, refs[k], &c, err);
		if (r < 0)
			break;
		v->contents[v->n_contents++] = c;
		r = add_content(v, c, refs[k], err);
		if (r == 0)
			r = add_index(v, c, &target, err);
		if (r == 0 &&
		    (json_array_append_new(manifests, oci_descriptor(&target, name)) < 0 ||
		     docker_entry(docker, c, name) < 0))
			r = err_nomem(err);
	}
	if (r == 0)
		r = add_json(v, "oci-layout", json_pack("{s:s}", "imageLayoutVersion", "1.0.0"),
			     err);
	if (r == 0)
		r = add_json(v, "index.json",
			     json_pack("{s:i, s:s, s:O}", "schemaVersion", 2, "mediaType",
				       MEDIA_INDEX_OCI, "manifests", manifests),
			     err);
	if (r == 0 && format == IMAGE_ARCHIVE_DOCKER)
		r = add_json(v, "manifest.json", json_incref(docker), err);
	json_decref(manifests);
	json_decref(docker);
	return r;
}

int save_new(struct store *s, char *const *refs, size_t n, enum image_archive format,
	     struct image_save **ret, struct err *err)
{
	struct image_save *v;
	int r;

	if (n == 0 || n > IMAGE_SAVE_MAX)
		return err_set(err, -EINVAL, "between 1 and %u images expected", IMAGE_SAVE_MAX);
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_nomem(err);
	v->store = s;
	v->fd = -1;
	v->total = TAIL_BLOCKS * ARCHIVE_BLOCK;
	r = add_all(v, refs, n, format, err);
	if (r < 0) {
		image_save_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

void image_save_free(struct image_save *v)
{
	if (!v)
		return;
	fd_close(&v->fd);
	EVP_MD_CTX_free(v->hash);
	for (size_t k = 0; k < v->n; k++)
		free(v->members[k].bytes);
	free(v->members);
	for (size_t k = 0; k < v->n_contents; k++)
		content_free(v->contents[k]);
	free(v);
}

uint64_t image_save_size(const struct image_save *v)
{
	return v->total;
}

/* ---- reading ---- */

static int open_blob(struct image_save *v, const struct member *m, struct err *err)
{
	uint64_t size = 0;
	int r = blob_open(v->store, m->digest, &v->fd, &size, err);

	if (r < 0)
		return r;
	if (size != m->size)
		return err_set(err, -EBADMSG, "blob %s has %llu bytes, its manifest says %llu",
			       m->digest, (unsigned long long)size, (unsigned long long)m->size);
	if (!v->hash)
		v->hash = EVP_MD_CTX_new();
	if (!v->hash || EVP_DigestInit_ex(v->hash, EVP_sha256(), NULL) != 1)
		return err_nomem(err);
	return 0;
}

/* All bytes are out: were they the right ones? */
static int close_blob(struct image_save *v, const struct member *m, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	uint8_t sum[32];

	fd_close(&v->fd);
	if (EVP_DigestFinal_ex(v->hash, sum, NULL) != 1)
		return err_nomem(err);
	digest_from_sha256(sum, digest);
	if (!str_eq(digest, m->digest))
		return err_set(
			err, -EBADMSG,
			"blob %s is damaged on disk: 'husk images verify' tells which images "
			"to pull again",
			m->digest);
	return 0;
}

static ssize_t blob_bytes(struct image_save *v, const struct member *m, uint64_t from, uint8_t *buf,
			  size_t cap, struct err *err)
{
	ssize_t n;
	int r = v->fd < 0 ? open_blob(v, m, err) : 0;

	if (r < 0)
		return r;
	n = read(v->fd, buf, MIN_OF((uint64_t)cap, m->size - from));
	if (n <= 0)
		return err_set(err, n < 0 ? -errno : -EBADMSG, "read blob %s", m->digest);
	if (EVP_DigestUpdate(v->hash, buf, (size_t)n) != 1)
		return err_nomem(err);
	if (from + (uint64_t)n == m->size)
		r = close_blob(v, m, err);
	return r < 0 ? r : n;
}

/* Some bytes of the member at hand, from v->offset on. */
static ssize_t member_bytes(struct image_save *v, uint8_t *buf, size_t cap, struct err *err)
{
	const struct member *m = &v->members[v->at];
	uint8_t header[ARCHIVE_BLOCK];
	uint64_t from;
	size_t n;

	if (v->offset < ARCHIVE_BLOCK) {
		n = MIN_OF(cap, (size_t)(ARCHIVE_BLOCK - v->offset));
		archive_header(header, m->name, m->size);
		memcpy(buf, header + v->offset, n);
		return (ssize_t)n;
	}
	from = v->offset - ARCHIVE_BLOCK;
	if (from < m->size && *m->digest)
		return blob_bytes(v, m, from, buf, cap, err);
	if (from < m->size) {
		n = (size_t)MIN_OF((uint64_t)cap, m->size - from);
		memcpy(buf, m->bytes + from, n);
		return (ssize_t)n;
	}
	n = MIN_OF(cap, (size_t)(padded(m->size) - from));
	memset(buf, 0, n);
	return (ssize_t)n;
}

ssize_t image_save_read(struct image_save *v, void *buf, size_t cap, struct err *err)
{
	uint8_t *out = buf;
	size_t have = 0;

	while (have < cap) {
		uint64_t end;
		ssize_t n;

		if (v->at == v->n) {
			n = (ssize_t)MIN_OF((uint64_t)(cap - have),
					    TAIL_BLOCKS * ARCHIVE_BLOCK - v->offset);
			memset(out + have, 0, (size_t)n);
			v->offset += (uint64_t)n;
			return (ssize_t)have + n;
		}
		n = member_bytes(v, out + have, cap - have, err);
		if (n < 0)
			return n;
		have += (size_t)n;
		v->offset += (uint64_t)n;
		end = ARCHIVE_BLOCK + padded(v->members[v->at].size);
		if (v->offset == end) {
			v->at++;
			v->offset = 0;
		}
	}
	return (ssize_t)have;
}
