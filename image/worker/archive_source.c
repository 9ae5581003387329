#include "image/worker/archive_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "base/util.h"
#include "image/limits.h"
#include "image/manifest.h"
#include "image/wire.h"

#define TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define TYPE_CONFIG "application/vnd.oci.image.config.v1+json"
#define TYPE_LAYER "application/vnd.oci.image.layer.v1.tar"

/* A blob that docker's manifest.json names by its file, under its digest. */
struct known {
	char digest[DIGEST_LEN + 1];
	char *bytes; /* owned; NULL: in the tar */
	uint64_t offset, size;
};

struct archive {
	archive_read_fn read;
	void *arg;
	struct archive_index index;
	struct archive_image *images;
	size_t n_images;
	struct known *known;
	size_t n_known, cap_known;
};

static void archive_json_freep(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json cleanup_with(archive_json_freep)

void archive_close(struct archive *a)
{
	if (!a)
		return;
	for (size_t k = 0; k < a->n_images; k++)
		strv_free(a->images[k].names);
	free(a->images);
	for (size_t k = 0; k < a->n_known; k++)
		free(a->known[k].bytes);
	free(a->known);
	archive_index_fini(&a->index);
	free(a);
}

/* ---- reading ---- */

static int read_range(const struct archive *a, void *buf, size_t n, uint64_t offset,
		      struct err *err)
{
	for (size_t have = 0; have < n;) {
		ssize_t k = a->read(a->arg, (char *)buf + have, n - have, offset + have);

		if (k <= 0)
			return k == 0 ? err_set(err, -EBADMSG, "the archive is cut off")
				      : err_errno(err, (int)k, "read the archive");
		have += (size_t)k;
	}
	return 0;
}

/* A whole document; NUL after the end. The caller frees. */
static int read_document(const struct archive *a, const struct archive_entry *e, char **ret,
			 struct err *err)
{
	cleanup_free char *text = NULL;
	int r;

	if (e->size > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "%.100s has more than %zu MiB", e->name,
			       IMAGE_MAX_DOCUMENT / MIB);
	text = malloc(e->size + 1);
	if (!text)
		return err_nomem(err);
	r = read_range(a, text, e->size, e->offset, err);
	if (r < 0)
		return r;
	text[e->size] = '\0';
	*ret = take_ptr(&text);
	return 0;
}

static int read_json(const struct archive *a, const struct archive_entry *e, json_t **ret,
		     struct err *err)
{
	cleanup_free char *text = NULL;
	int r = read_document(a, e, &text, err);

	if (r == 0) {
		r = manifest_json_limits(text, e->size, err);
		if (r < 0)
			r = err_wrap(err, r, "%.100s", e->name);
	}
	if (r < 0)
		return r;
	*ret = json_loadb(text, e->size, JSON_REJECT_DUPLICATES, NULL);
	return *ret ? 0 : err_set(err, -EPROTO, "%.100s is not JSON", e->name);
}

static int hash_entry(const struct archive *a, const struct archive_entry *e,
		      char ret[DIGEST_LEN + 1], struct err *err)
{
	static uint8_t buf[64 * KIB];
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	uint8_t sum[32];
	int r = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 ? 0 : err_nomem(err);

	for (uint64_t at = 0; r == 0 && at < e->size;) {
		size_t n = (size_t)MIN_OF((uint64_t)sizeof(buf), e->size - at);

		r = read_range(a, buf, n, e->offset + at, err);
		if (r == 0 && EVP_DigestUpdate(c, buf, n) != 1)
			r = err_nomem(err);
		at += n;
	}
	if (r == 0 && EVP_DigestFinal_ex(c, sum, NULL) != 1)
		r = err_nomem(err);
	EVP_MD_CTX_free(c);
	if (r == 0)
		digest_from_sha256(sum, ret);
	return r;
}

/* ---- what there is ---- */

/* The image with this manifest digest, which is added if it is new. */
static int image_of(struct archive *a, const char *digest, struct archive_image **ret,
		    struct err *err)
{
	struct archive_image *im;

	for (size_t k = 0; k < a->n_images; k++) {
		if (str_eq(a->images[k].digest, digest)) {
			*ret = &a->images[k];
			return 0;
		}
	}
	if (a->n_images == ARCHIVE_MAX_IMAGES)
		return err_set(err, -EFBIG, "the archive has more than %u images",
			       ARCHIVE_MAX_IMAGES);
	im = reallocarray(a->images, a->n_images + 1, sizeof(*im));
	if (!im)
		return err_nomem(err);
	a->images = im;
	im = &a->images[a->n_images++];
	*im = (struct archive_image){ .names = calloc(1, sizeof(*im->names)) };
	memcpy(im->digest, digest, sizeof(im->digest));
	*ret = im;
	return im->names ? 0 : err_nomem(err);
}

static int add_name(struct archive_image *im, const char *name, struct err *err)
{
	size_t n = strv_len(im->names);
	char **more;

	for (size_t k = 0; k < n; k++)
		if (str_eq(im->names[k], name))
			return 0;
	if (n == ARCHIVE_MAX_NAMES)
		return err_set(err, -EFBIG, "an image has more than %u names", ARCHIVE_MAX_NAMES);
	if (strlen(name) > WIRE_MAX_NAME)
		return err_set(err, -EPROTO, "a name in the archive has more than %u bytes",
			       WIRE_MAX_NAME);
	more = reallocarray(im->names, n + 2, sizeof(*more));
	if (!more)
		return err_nomem(err);
	im->names = more;
	more[n] = strdup(name);
	more[n + 1] = NULL;
	return more[n] ? 0 : err_nomem(err);
}

static int add_known(struct archive *a, const char *digest, char *bytes, uint64_t offset,
		     uint64_t size, struct err *err)
{
	struct known *k;

	if (a->n_known == a->cap_known) {
		size_t cap = a->cap_known ? 2 * a->cap_known : 32;

		k = reallocarray(a->known, cap, sizeof(*k));
		if (!k) {
			free(bytes);
			return err_nomem(err);
		}
		a->known = k;
		a->cap_known = cap;
	}
	k = &a->known[a->n_known++];
	*k = (struct known){ .bytes = bytes, .offset = offset, .size = size };
	memcpy(k->digest, digest, sizeof(k->digest));
	return 0;
}

/* ---- OCI ---- */

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return str_empty(s) ? NULL : s;
}

/* Some tools write the whole name where the specification has only the tag. */
static const char *oci_name(const json_t *descriptor)
{
	const json_t *notes = json_object_get(descriptor, "annotations");
	const char *name = text_of(notes, "io.containerd.image.name");

	if (name)
		return name;
	name = text_of(notes, "org.opencontainers.image.ref.name");
	return name && strpbrk(name, ":/@") ? name : NULL;
}

static int read_oci(struct archive *a, const struct archive_entry *e, struct err *err)
{
	cleanup_json json_t *index = NULL;
	struct archive_image *im;
	size_t k;
	json_t *d;
	int r = read_json(a, e, &index, err);

	json_array_foreach (json_object_get(index, "manifests"), k, d) {
		const char *digest = text_of(d, "digest"), *name = oci_name(d);

		if (r == 0 && !digest_valid(digest))
			r = err_set(err, -EPROTO, "index.json has a manifest without a digest");
		if (r == 0)
			r = image_of(a, digest, &im, err);
		if (r == 0 && name)
			r = add_name(im, name, err);
		if (r < 0)
			break;
	}
	return r;
}

/* ---- docker ---- */

/* The suffix of the media type, by the first bytes. */
static int layer_kind(const struct archive *a, const struct archive_entry *e, const char **ret,
		      struct err *err)
{
	uint8_t b[4] = { 0 };
	int r = e->size < sizeof(b) ? 0 : read_range(a, b, sizeof(b), e->offset, err);

	*ret = b[0] == 0x1f && b[1] == 0x8b	       ? "+gzip"
	       : memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0 ? "+zstd"
						       : "";
	return r;
}

/* A file named after a digest is believed to have it, and so is the diff id of a layer that is not
 * compressed: the bytes are verified when they are used. */
static int layer_digest(const struct archive *a, const struct archive_entry *e, const char *kind,
			const char *diff_id, char ret[DIGEST_LEN + 1], struct err *err)
{
	if (str_starts(e->name, "blobs/sha256/")) {
		(void)snprintf(ret, DIGEST_LEN + 1, "sha256:%.64s", e->name + 13);
		if (digest_valid(ret) && strlen(e->name) == 13 + 64)
			return 0;
	}
	if (!*kind && digest_valid(diff_id)) {
		memcpy(ret, diff_id, DIGEST_LEN + 1);
		return 0;
	}
	return hash_entry(a, e, ret, err);
}

static int docker_layer(struct archive *a, const json_t *file, const json_t *diff_id,
			json_t *layers, struct err *err)
{
	const char *name = json_string_value(file), *kind = "";
	const struct archive_entry *e = name ? archive_find(&a->index, name) : NULL;
	char digest[DIGEST_LEN + 1], type[64];
	int r;

	if (!e)
		return err_set(err, -EPROTO, "the layer %.100s is not in the archive",
			       name ? name : "?");
	r = layer_kind(a, e, &kind, err);
	if (r == 0)
		r = layer_digest(a, e, kind, json_string_value(diff_id), digest, err);
	if (r == 0)
		r = add_known(a, digest, NULL, e->offset, e->size, err);
	if (r < 0)
		return r;
	(void)snprintf(type, sizeof(type), TYPE_LAYER "%s", kind);
	return json_array_append_new(layers,
				     json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest",
					       digest, "size", (json_int_t)e->size)) < 0
		       ? err_nomem(err)
		       : 0;
}

/* docker's form has no manifest in it: makes one, the same for the same files. */
static int make_manifest(struct archive *a, const char *config, uint64_t config_size,
			 json_t *layers, struct archive_image **ret, struct err *err)
{
	cleanup_json json_t *j =
		json_pack("{s:i, s:s, s:{s:s, s:s, s:I}, s:O}", "schemaVersion", 2, "mediaType",
			  TYPE_MANIFEST, "config", "mediaType", TYPE_CONFIG, "digest", config,
			  "size", (json_int_t)config_size, "layers", layers);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	char digest[DIGEST_LEN + 1];
	int r;

	if (!text || digest_of(text, strlen(text), digest) < 0) {
		free(text);
		return err_nomem(err);
	}
	r = add_known(a, digest, text, 0, strlen(text), err);
	return r < 0 ? r : image_of(a, digest, ret, err);
}

static int docker_image(struct archive *a, const json_t *entry, struct err *err)
{
	const char *name = text_of(entry, "Config");
	const struct archive_entry *e = name ? archive_find(&a->index, name) : NULL;
	cleanup_json json_t *config = NULL, *layers = json_array();
	json_t *files = json_object_get(entry, "Layers"), *diff_ids, *j;
	char digest[DIGEST_LEN + 1];
	struct archive_image *im = NULL;
	size_t k;
	int r;

	if (!e || !layers)
		return err_set(err, -EPROTO, "the configuration %.100s is not in the archive",
			       name ? name : "?");
	r = read_json(a, e, &config, err);
	if (r == 0)
		r = hash_entry(a, e, digest, err);
	if (r == 0)
		r = add_known(a, digest, NULL, e->offset, e->size, err);
	if (r == 0 && json_array_size(files) > IMAGE_MAX_LAYERS)
		r = err_set(err, -EFBIG, "an image has more than %d layers", IMAGE_MAX_LAYERS);
	diff_ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
	for (k = 0; r == 0 && k < json_array_size(files); k++)
		r = docker_layer(a, json_array_get(files, k), json_array_get(diff_ids, k), layers,
				 err);
	if (r == 0)
		r = make_manifest(a, digest, e->size, layers, &im, err);
	if (r < 0)
		return r;
	json_array_foreach (json_object_get(entry, "RepoTags"), k, j) {
		if (r == 0 && json_string_value(j))
			r = add_name(im, json_string_value(j), err);
	}
	return r;
}

static int read_docker(struct archive *a, const struct archive_entry *e, struct err *err)
{
	cleanup_json json_t *list = NULL;
	int r = read_json(a, e, &list, err);

	if (r == 0 && json_array_size(list) > ARCHIVE_MAX_IMAGES)
		r = err_set(err, -EFBIG, "the archive has more than %u images", ARCHIVE_MAX_IMAGES);
	for (size_t k = 0; r == 0 && k < json_array_size(list); k++)
		r = docker_image(a, json_array_get(list, k), err);
	return r;
}

/* ---- the whole ---- */

int archive_open(archive_read_fn read, void *arg, uint64_t size, struct archive **ret,
		 struct err *err)
{
	struct archive *a = calloc(1, sizeof(*a));
	const struct archive_entry *oci, *docker;
	int r;

	if (!a)
		return err_nomem(err);
	a->read = read;
	a->arg = arg;
	r = archive_index_read(read, arg, size, &a->index, err);
	oci = r == 0 ? archive_find(&a->index, "index.json") : NULL;
	docker = r == 0 ? archive_find(&a->index, "manifest.json") : NULL;
	if (oci)
		r = read_oci(a, oci, err);
	else if (docker)
		r = read_docker(a, docker, err);
	else if (r == 0)
		r = err_set(err, -EPROTO,
			    "this is no archive of images: it has neither an index.json (OCI "
			    "layout) nor a manifest.json (docker save)");
	if (r == 0 && !a->n_images)
		r = err_set(err, -EPROTO, "there are no images in the archive");
	if (r < 0) {
		archive_close(a);
		return r;
	}
	*ret = a;
	return 0;
}

const struct archive_image *archive_images(const struct archive *a, size_t *ret_n)
{
	*ret_n = a->n_images;
	return a->images;
}

int archive_blob(const struct archive *a, const char *digest, struct archive_blob *ret,
		 struct err *err)
{
	const struct archive_entry *e;
	char name[128];

	for (size_t k = 0; k < a->n_known; k++) {
		const struct known *b = &a->known[k];

		if (str_eq(b->digest, digest)) {
			*ret = (struct archive_blob){ b->bytes, b->offset, b->size };
			return 0;
		}
	}
	(void)snprintf(name, sizeof(name), "blobs/sha256/%.64s",
		       digest_valid(digest) ? digest + 7 : "");
	e = archive_find(&a->index, name);
	if (!e)
		return err_set(err, -ENOENT, "%.80s is not in the archive", digest);
	*ret = (struct archive_blob){ NULL, e->offset, e->size };
	return 0;
}
