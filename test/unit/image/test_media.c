/* Which media types are layers, manifests, configurations, and how layers are compressed. */
#include "test/lib/unit.h"

#include <errno.h>

#include "base/util.h"
#include "image/media.h"

#define OCI "application/vnd.oci.image."
#define DOCKER "application/vnd.docker."

static void layers(void **state)
{
	static const struct {
		const char *type;
		enum media_compression want;
	} good[] = {
		{ OCI "layer.v1.tar", MEDIA_PLAIN },
		{ OCI "layer.v1.tar+gzip", MEDIA_GZIP },
		{ OCI "layer.v1.tar+zstd", MEDIA_ZSTD },
		{ DOCKER "image.rootfs.diff.tar", MEDIA_PLAIN },
		{ DOCKER "image.rootfs.diff.tar.gzip", MEDIA_GZIP },
		{ DOCKER "image.rootfs.diff.tar.zstd", MEDIA_ZSTD },
	};
	static const struct {
		const char *type, *text;
	} bad[] = {
		{ DOCKER "image.rootfs.foreign.diff.tar.gzip", "foreign layer" },
		{ OCI "layer.nondistributable.v1.tar+gzip", "foreign layer" },
		{ OCI "layer.v1.tar+gzip+encrypted", "encrypted layer" },
		{ OCI "layer.v1.tar+xz", "unknown media type" },
		{ OCI "layer.v1.tar+gzip ", "unknown media type" },
		{ OCI "config.v1+json", "unknown media type" },
		{ "", "unknown media type" },
		{ "application/vnd.dev.cosign.simplesigning.v1+json", "an artifact, not" },
		{ "application/vnd.in-toto+json", "an artifact, not" },
		{ "application/wasm", "an artifact, not" },
	};
	enum media_compression c;

	for (size_t k = 0; k < ARRAY_SIZE(good); k++) {
		assert_int_equal(media_layer(good[k].type, &c, NULL), 0);
		assert_int_equal(c, good[k].want);
	}
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		struct err err = { 0 };

		assert_int_equal(media_layer(bad[k].type, &c, &err), -ENOTSUP);
		assert_text(err.msg, bad[k].text);
	}
}

static void names(void **state)
{
	static const char *const unknown[] = { "", "gz", "GZIP", "gzip ", "bzip2" };
	enum media_compression c = MEDIA_PLAIN;

	for (int k = MEDIA_PLAIN; k <= MEDIA_ZSTD; k++) {
		const char *name = media_compression_name((enum media_compression)k);

		assert_int_equal(media_compression_parse(name, &c), 0);
		assert_int_equal(c, k);
	}
	for (size_t k = 0; k < ARRAY_SIZE(unknown); k++)
		assert_int_equal(media_compression_parse(unknown[k], &c), -EINVAL);
	assert_int_equal(c, MEDIA_ZSTD);
}

/* As old pushers wrote them, and as artifacts have them. */
static void configs(void **state)
{
	static const char *const good[] = { OCI "config.v1+json",
					    DOCKER "container.image.v1+json",
					    "",
					    "application/octet-stream",
					    "application/json",
					    "application/json; charset=utf-8",
					    "text/html",
					    "text/html; charset=utf-8",
					    "Text/Plain" };
	static const char *const bad[] = { "application/vnd.oci.empty.v1+json",
					   "application/vnd.cncf.helm.config.v1+json",
					   "application/vnd.cncf.notary.signature",
					   "application/vnd.dev.cosign.artifact.sig.v1+json",
					   "application/vnd.in-toto+json",
					   "application/vnd.wasm.config.v0+json",
					   "application/spdx+json",
					   "application/jsonx" };

	for (size_t k = 0; k < ARRAY_SIZE(good); k++)
		assert_true(media_is_config(good[k], ""));
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		assert_false(media_is_config(bad[k], ""));
	assert_true(media_is_config(OCI "config.v1+json", "application/x"));
	assert_false(media_is_config("application/json", "application/x"));
}

static void documents(void **state)
{
	assert_true(media_is_manifest(MEDIA_MANIFEST_OCI));
	assert_true(media_is_manifest(MEDIA_MANIFEST_DOCKER));
	assert_false(media_is_manifest(MEDIA_INDEX_OCI));
	assert_false(media_is_manifest(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers),
		cmocka_unit_test(names),
		cmocka_unit_test(configs),
		cmocka_unit_test(documents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
