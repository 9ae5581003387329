#include "image/media.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

static const char *const compression_names[] = { "none", "gzip", "zstd" };

int media_compression_parse(const char *s, enum media_compression *ret)
{
	for (size_t k = 0; k < ARRAY_SIZE(compression_names); k++) {
		if (str_eq(s, compression_names[k])) {
			*ret = (enum media_compression)k;
			return 0;
		}
	}
	return -EINVAL;
}

const char *media_compression_name(enum media_compression c)
{
	return compression_names[c];
}

int media_layer(const char *type, enum media_compression *ret, struct err *err)
{
	static const struct {
		const char *type;
		enum media_compression compression;
	} known[] = {
		{ "application/vnd.oci.image.layer.v1.tar", MEDIA_PLAIN },
		{ "application/vnd.oci.image.layer.v1.tar+gzip", MEDIA_GZIP },
		{ "application/vnd.oci.image.layer.v1.tar+zstd", MEDIA_ZSTD },
		{ "application/vnd.docker.image.rootfs.diff.tar", MEDIA_PLAIN },
		{ "application/vnd.docker.image.rootfs.diff.tar.gzip", MEDIA_GZIP },
		{ "application/vnd.docker.image.rootfs.diff.tar.zstd", MEDIA_ZSTD },
	};

	for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
		if (str_eq(type, known[k].type)) {
			*ret = known[k].compression;
			return 0;
		}
	}
	if (strstr(type, "foreign") || strstr(type, "nondistributable"))
		return err_set(err, -ENOTSUP, "foreign layer (%.100s): registries do not have it",
			       type);
	if (strstr(type, "encrypted"))
		return err_set(err, -ENOTSUP, "encrypted layer (%.100s)", type);
	/* Signatures have the configuration of an image; what they are their layers say. */
	return err_set(err, -ENOTSUP, "layer of unknown media type \"%.100s\"%s", type,
		       *type && !strstr(type, ".image.layer.") && !strstr(type, ".image.rootfs.")
			       ? ": an artifact, not a container image"
			       : "");
}

bool media_is_manifest(const char *type)
{
	return str_eq(type, MEDIA_MANIFEST_OCI) || str_eq(type, MEDIA_MANIFEST_DOCKER);
}

/* An artifact says what it is by a type of its own: of a vendor's tree, or of another format. */
static bool says_nothing(const char *type)
{
	static const char *const known[] = { "",
					     "application/octet-stream",
					     "application/json",
					     "application/x-json",
					     "binary/octet-stream",
					     "text/html",
					     "text/json",
					     "text/plain" };
	size_t len = strcspn(type, ";"); /* "; charset=utf-8" */

	while (len && type[len - 1] == ' ')
		len--;
	for (size_t k = 0; k < ARRAY_SIZE(known); k++)
		if (strlen(known[k]) == len && !strncasecmp(type, known[k], len))
			return true;
	return false;
}

bool media_is_config(const char *type, const char *artifact)
{
	return str_eq(type, "application/vnd.oci.image.config.v1+json") ||
	       str_eq(type, "application/vnd.docker.container.image.v1+json") ||
	       (says_nothing(type) && !*artifact);
}
