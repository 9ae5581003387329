/*
 * Documents of a registry: OCI index, manifest and configuration, and Docker's schema 2 forms of
 * them. Foreign bytes in, typed and bounded structures out. Pure; any thread.
 */
#ifndef HUSK_IMAGE_MANIFEST_H
#define HUSK_IMAGE_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"
#include "image/image.h"
#include "image/media.h"

#define MANIFEST_MAX_ENTRIES 1000u /* of an index */
#define MANIFEST_MAX_NODES 200000u /* JSON values in a document: memory of the parser */
#define MANIFEST_MAX_DEPTH 32u
#define MANIFEST_MAX_STRINGS 10000u /* entries of Env, Cmd, Labels, ... */

struct manifest_layer {
	char digest[DIGEST_LEN + 1];
	uint64_t size;
	enum media_compression compression;
};

struct manifest {
	const char *media_type; /* static text */
	char config_digest[DIGEST_LEN + 1];
	uint64_t config_size;
	struct manifest_layer layers[IMAGE_MAX_LAYERS]; /* lowest first */
	size_t n_layers;
};

/*
 * What a registry answered: either an image's manifest (*ret_choice is "" then, and *ret filled),
 * or an index, of which the manifest for linux/`arch` is chosen (*ret_choice is its digest; with
 * `arch` NULL an index is refused). -EPROTO: not understood. -ENOTSUP: schema 1, foreign or
 * encrypted layers, no such platform, an artifact. -EFBIG.
 */
int manifest_parse(const void *data, size_t len, const char *arch, struct manifest *ret,
		   char ret_choice[DIGEST_LEN + 1], struct err *err) must_check;

/* Depth and number of the values of a JSON text, before a parser sees it. -EFBIG. Not a check of
 * its syntax. */
int manifest_json_limits(const void *data, size_t len, struct err *err) must_check;

/* The configuration; the caller fills nothing before and calls image_config_fini after. */
int image_config_parse(const void *data, size_t len, struct image_config *ret,
		       struct err *err) must_check;
void image_config_fini(struct image_config *c);

#endif
