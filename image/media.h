/*
 * Media types of what registries hold (OCI image-spec, Docker's image manifest V2 schema 2): which
 * are layers and how those are compressed, which are manifests and configurations. Pure; any
 * thread. What decompresses is in layer/, of another process.
 */
#ifndef HUSK_IMAGE_MEDIA_H
#define HUSK_IMAGE_MEDIA_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

#define MEDIA_MANIFEST_OCI "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_MANIFEST_DOCKER "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_INDEX_OCI "application/vnd.oci.image.index.v1+json"
#define MEDIA_INDEX_DOCKER "application/vnd.docker.distribution.manifest.list.v2+json"

enum media_compression { MEDIA_PLAIN, MEDIA_GZIP, MEDIA_ZSTD };

/* "none", "gzip", "zstd", as the worker's arguments name them. -EINVAL. */
int media_compression_parse(const char *s, enum media_compression *ret) must_check;
const char *media_compression_name(enum media_compression c);

/* How a layer of this type is said to be compressed. -ENOTSUP: not one that can be had or
 * unpacked. */
int media_layer(const char *type, enum media_compression *ret, struct err *err) must_check;
bool media_is_manifest(const char *type);
/* Of a container image. Old pushers and proxies wrote types that say nothing ("", octet-stream,
 * JSON, even HTML): those are no ground to refuse one, the content will tell, unless the manifest
 * itself says that it is an artifact (artifactType, "" = it does not). */
bool media_is_config(const char *type, const char *artifact);

#endif
