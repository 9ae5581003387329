#include "image/manifest.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "base/util.h"

static void manifest_json_freep(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json cleanup_with(manifest_json_freep)

/*
 * The parser's memory is many times the text's size when there are many small values: depth and
 * number of values are counted before it sees them. Not a syntax check.
 */
int manifest_json_limits(const void *data, size_t len, struct err *err)
{
	const char *p = data;
	unsigned depth = 0, nodes = 0;
	bool string = false;

	for (const char *end = p + len; p < end; p++) {
		if (string) {
			if (*p == '\\')
				p++;
			else if (*p == '"')
				string = false;
			continue;
		}
		switch (*p) {
		case '"':
			string = true;
			break;
		case '{':
		case '[':
			if (++depth > MANIFEST_MAX_DEPTH)
				return err_set(err, -EFBIG, "JSON nested more than %u deep",
					       MANIFEST_MAX_DEPTH);
			nodes++;
			break;
		case '}':
		case ']':
			depth -= depth > 0;
			break;
		case ',':
		case ':':
			nodes++;
			break;
		}
		if (nodes > MANIFEST_MAX_NODES)
			return err_set(err, -EFBIG, "JSON of more than %u values",
				       MANIFEST_MAX_NODES);
	}
	return 0;
}

static int load(const void *data, size_t len, const char *what, json_t **ret, struct err *err)
{
	json_error_t e;
	json_t *j;
	int r;

	if (len > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "%s of more than %zu MiB", what,
			       IMAGE_MAX_DOCUMENT / MIB);
	r = manifest_json_limits(data, len, err);
	if (r < 0)
		return err_wrap(err, r, "%s", what);
	j = json_loadb(data, len, JSON_REJECT_DUPLICATES, &e);
	if (!j)
		return err_set(err, -EPROTO, "%s is not JSON: %s (line %d)", what, e.text, e.line);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(err, -EPROTO, "%s is no JSON object", what);
	}
	*ret = j;
	return 0;
}

/* A member that is a string; "" when absent. */
static const char *text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

/* ---- descriptors ---- */

static int descriptor(const json_t *j, const char *what, char digest[DIGEST_LEN + 1],
		      uint64_t *size, struct err *err)
{
	const char *d = text(j, "digest");
	json_t *s = json_object_get(j, "size");

	if (!digest_valid(d))
		return err_set(err, -EPROTO, "%s has a bad digest \"%.100s\"", what, d);
	if (!json_is_integer(s) || json_integer_value(s) < 0)
		return err_set(err, -EPROTO, "%s has a bad size", what);
	memcpy(digest, d, DIGEST_LEN + 1);
	*size = (uint64_t)json_integer_value(s);
	return 0;
}

static int parse_layer(const json_t *j, struct manifest_layer *l, struct err *err)
{
	int r = descriptor(j, "layer", l->digest, &l->size, err);

	if (r == 0)
		r = media_layer(text(j, "mediaType"), &l->compression, err);
	if (r == 0 && l->size > IMAGE_MAX_LAYER)
		r = err_set(err, -EFBIG, "layer of more than %zu GiB", IMAGE_MAX_LAYER / GIB);
	return r;
}

static int parse_image(const json_t *j, struct manifest *m, struct err *err)
{
	json_t *config = json_object_get(j, "config"), *layers = json_object_get(j, "layers");
	const char *type = text(config, "mediaType"), *artifact = text(j, "artifactType");
	int r;

	if (!json_is_object(config) || !json_is_array(layers))
		return err_set(err, -EPROTO, "manifest without config or layers");
	if (!media_is_config(type, artifact))
		return err_set(err, -ENOTSUP,
			       "not a container image but an artifact of type \"%.100s\"",
			       *artifact ? artifact : type);
	r = descriptor(config, "configuration", m->config_digest, &m->config_size, err);
	if (r < 0)
		return r;
	if (m->config_size > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "configuration of more than %zu MiB",
			       IMAGE_MAX_DOCUMENT / MIB);
	if (json_array_size(layers) > IMAGE_MAX_LAYERS)
		return err_set(err, -EFBIG, "more than %d layers", IMAGE_MAX_LAYERS);
	for (size_t k = 0; k < json_array_size(layers); k++) {
		r = parse_layer(json_array_get(layers, k), &m->layers[k], err);
		if (r < 0)
			return err_wrap(err, r, "layer %zu", k + 1);
	}
	m->n_layers = json_array_size(layers);
	m->media_type = str_starts(type, "application/vnd.docker.") ? MEDIA_MANIFEST_DOCKER
								    : MEDIA_MANIFEST_OCI;
	if (media_is_manifest(text(j, "mediaType")))
		m->media_type = str_eq(text(j, "mediaType"), MEDIA_MANIFEST_OCI)
					? MEDIA_MANIFEST_OCI
					: MEDIA_MANIFEST_DOCKER;
	return 0;
}

/* ---- index ---- */

/* How well an entry fits: 0 = not at all. Every machine of an architecture runs its first variant.
 */
static int platform_fit(const json_t *p, const char *arch)
{
	const char *variant = text(p, "variant");

	if (!str_eq(text(p, "os"), "linux") || !str_eq(text(p, "architecture"), arch))
		return 0;
	if (!*variant)
		return 3;
	if (str_eq(arch, "arm64"))
		return str_eq(variant, "v8") ? 3 : 0;
	if (str_eq(arch, "amd64"))
		return str_eq(variant, "v1") ? 2 : 0;
	return 1;
}

/* "linux/arm64, linux/s390x", for the error. */
static void list_platforms(const json_t *list, char *out, size_t n)
{
	size_t at = 0;

	*out = 0;
	for (size_t k = 0; k < json_array_size(list) && at < n; k++) {
		json_t *p = json_object_get(json_array_get(list, k), "platform");
		int w;

		if (str_eq(text(p, "os"), "unknown") || !*text(p, "os"))
			continue;
		w = snprintf(out + at, n - at, "%s%.20s/%.20s%s%.10s", at ? ", " : "",
			     text(p, "os"), text(p, "architecture"), *text(p, "variant") ? "/" : "",
			     text(p, "variant"));
		at += w > 0 ? (size_t)w : 0;
	}
}

static int choose(const json_t *j, const char *arch, char ret[DIGEST_LEN + 1], struct err *err)
{
	json_t *list = json_object_get(j, "manifests"), *best = NULL;
	char have[256];
	int fit = 0, f;
	uint64_t size;

	if (json_array_size(list) > MANIFEST_MAX_ENTRIES)
		return err_set(err, -EFBIG, "index of more than %u entries", MANIFEST_MAX_ENTRIES);
	for (size_t k = 0; k < json_array_size(list); k++) {
		json_t *e = json_array_get(list, k);

		f = media_is_manifest(text(e, "mediaType"))
			    ? platform_fit(json_object_get(e, "platform"), arch)
			    : 0;
		if (f > fit) {
			fit = f;
			best = e;
		}
	}
	/* An index of one manifest that does not say for what: its configuration will. */
	if (!best && json_array_size(list) == 1 &&
	    !json_object_get(json_array_get(list, 0), "platform") &&
	    media_is_manifest(text(json_array_get(list, 0), "mediaType")))
		best = json_array_get(list, 0);
	if (!best) {
		list_platforms(list, have, sizeof(have));
		return err_set(err, -ENOTSUP, "no image for linux/%s (there is: %s)", arch,
			       *have ? have : "none");
	}
	return descriptor(best, "manifest", ret, &size, err);
}

int manifest_parse(const void *data, size_t len, const char *arch, struct manifest *ret,
		   char ret_choice[DIGEST_LEN + 1], struct err *err)
{
	char choice[DIGEST_LEN + 1] = "";
	cleanup_json json_t *j = NULL;
	struct manifest *m = NULL;
	int r = load(data, len, "manifest", &j, err);

	if (r < 0)
		return r;
	if (json_integer_value(json_object_get(j, "schemaVersion")) != 2)
		return err_set(err, json_object_get(j, "schemaVersion") ? -ENOTSUP : -EPROTO,
			       "manifest is not of schema 2");
	if (json_is_array(json_object_get(j, "manifests"))) {
		if (!arch)
			return err_set(err, -EPROTO, "an index where a manifest should be");
		/* Both at once could be read in two ways. */
		if (json_object_get(j, "layers") || json_object_get(j, "config"))
			return err_set(err, -EPROTO, "manifest is an index and an image at once");
		r = choose(j, arch, choice, err);
		if (r == 0)
			memcpy(ret_choice, choice, sizeof(choice));
		return r;
	}
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_nomem(err);
	r = parse_image(j, m, err);
	if (r == 0) {
		*ret = *m;
		*ret_choice = 0;
	}
	free(m);
	return r;
}

/* ---- configuration ---- */

/* An array of strings, or null, or nothing. */
static int strings(const json_t *j, const char *key, char ***ret, struct err *err)
{
	json_t *a = json_object_get(j, key);
	size_t n = json_array_size(a);
	char **v;

	if (a && !json_is_array(a) && !json_is_null(a))
		return err_set(err, -EPROTO, "configuration: %s is no list", key);
	if (n > MANIFEST_MAX_STRINGS)
		return err_set(err, -EFBIG, "configuration: %s has more than %u entries", key,
			       MANIFEST_MAX_STRINGS);
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return err_nomem(err);
	*ret = v; /* the caller frees also when this fails */
	for (size_t k = 0; k < n; k++) {
		const char *s = json_string_value(json_array_get(a, k));

		if (!s)
			return err_set(err, -EPROTO,
				       "configuration: %s has an entry that is no text", key);
		v[k] = strdup(s);
		if (!v[k])
			return err_nomem(err);
	}
	return 0;
}

static int labels(const json_t *j, char ***ret, struct err *err)
{
	json_t *o = json_object_get(j, "Labels"), *value;
	size_t n = json_object_size(o), k = 0;
	const char *key;
	char **v;

	if (n > MANIFEST_MAX_STRINGS)
		return err_set(err, -EFBIG, "configuration: more than %u labels",
			       MANIFEST_MAX_STRINGS);
	v = calloc(2 * n + 1, sizeof(*v));
	if (!v)
		return err_nomem(err);
	*ret = v;
	json_object_foreach (o, key, value) {
		const char *s = json_string_value(value);

		if (!s)
			return err_set(err, -EPROTO, "configuration: a label that is no text");
		v[k] = strdup(key);
		v[k + 1] = v[k] ? strdup(s) : NULL;
		if (!v[k + 1])
			return err_nomem(err);
		k += 2;
	}
	return 0;
}

static int copy_text(const json_t *j, const char *key, char **ret, struct err *err)
{
	*ret = strdup(text(j, key));
	return *ret ? 0 : err_nomem(err);
}

static int parse_config(const json_t *j, struct image_config *c, struct err *err)
{
	json_t *p = json_object_get(j, "config"), *rootfs = json_object_get(j, "rootfs");
	int r;

	if ((r = copy_text(j, "os", &c->os, err)) < 0 ||
	    (r = copy_text(j, "architecture", &c->arch, err)) < 0 ||
	    (r = copy_text(j, "variant", &c->variant, err)) < 0 ||
	    (r = copy_text(j, "created", &c->created, err)) < 0 ||
	    (r = strings(p, "Entrypoint", &c->entrypoint, err)) < 0 ||
	    (r = strings(p, "Cmd", &c->cmd, err)) < 0 ||
	    (r = strings(p, "Env", &c->env, err)) < 0 || (r = labels(p, &c->labels, err)) < 0 ||
	    (r = copy_text(p, "WorkingDir", &c->working_dir, err)) < 0 ||
	    (r = copy_text(p, "User", &c->user, err)) < 0 ||
	    (r = copy_text(p, "StopSignal", &c->stop_signal, err)) < 0 ||
	    (r = strings(rootfs, "diff_ids", &c->diff_ids, err)) < 0)
		return r;
	if (!str_eq(text(rootfs, "type"), "layers"))
		return err_set(err, -EPROTO, "configuration: rootfs is not of type layers");
	if (strv_len(c->diff_ids) > IMAGE_MAX_LAYERS)
		return err_set(err, -EFBIG, "more than %d layers", IMAGE_MAX_LAYERS);
	for (char **d = c->diff_ids; *d; d++)
		if (!digest_valid(*d))
			return err_set(err, -EPROTO, "configuration: bad diff id \"%.100s\"", *d);
	return 0;
}

int image_config_parse(const void *data, size_t len, struct image_config *ret, struct err *err)
{
	cleanup_json json_t *j = NULL;
	struct image_config c = { 0 };
	int r = load(data, len, "configuration", &j, err);

	if (r < 0)
		return r;
	r = parse_config(j, &c, err);
	if (r < 0) {
		image_config_fini(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void image_config_fini(struct image_config *c)
{
	strv_free(c->entrypoint);
	strv_free(c->cmd);
	strv_free(c->env);
	strv_free(c->labels);
	strv_free(c->diff_ids);
	free(c->working_dir);
	free(c->user);
	free(c->stop_signal);
	free(c->os);
	free(c->arch);
	free(c->variant);
	free(c->created);
	memset(c, 0, sizeof(*c));
}
