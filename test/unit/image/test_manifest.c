#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/manifest.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX2 "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define D "\"digest\":\"sha256:" HEX "\",\"size\":7"
#define D2 "\"digest\":\"sha256:" HEX2 "\",\"size\":8"
#define CONFIG "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\"," D "}"
#define OCI_GZ "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\"," D "}"
#define ENTRY(os, arch, variant, d)                                                                \
	"{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"," d                         \
	",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\"" variant "}}"

static int parse(const char *text, const char *arch, struct manifest *m,
		 char choice[DIGEST_LEN + 1])
{
	struct err err = { 0 };
	int r = manifest_parse(text, strlen(text), arch, m, choice, &err);

	assert_true(r >= 0 || err.msg[0]);
	return r;
}

static void image(void **state)
{
	static const char text[] =
		"{\"schemaVersion\":2," CONFIG ",\"layers\":[" OCI_GZ
		",{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+zstd\"," D2
		"},"
		"{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\"," D
		"},"
		"{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\"," D "}]}";
	struct manifest m;
	char choice[DIGEST_LEN + 1];

	assert_int_equal(parse(text, "amd64", &m, choice), 0);
	assert_string_equal(choice, "");
	assert_string_equal(m.config_digest, "sha256:" HEX);
	assert_int_equal(m.config_size, 7);
	assert_int_equal(m.n_layers, 4);
	assert_int_equal(m.layers[0].compression, MEDIA_GZIP);
	assert_int_equal(m.layers[1].compression, MEDIA_ZSTD);
	assert_int_equal(m.layers[2].compression, MEDIA_PLAIN);
	assert_int_equal(m.layers[3].compression, MEDIA_GZIP);
	assert_string_equal(m.layers[1].digest, "sha256:" HEX2);
	assert_int_equal(m.layers[1].size, 8);
}

static void choice_of_platform(void **state)
{
	static const char text[] =
		"{\"schemaVersion\":2,\"manifests\":[" ENTRY("windows", "amd64", "", D) "," ENTRY(
			"linux", "amd64", ",\"variant\":\"v3\"",
			D) "," ENTRY("linux", "amd64", "",
				     D2) "," ENTRY("linux", "arm64", ",\"variant\":\"v8\"", D) "]}";
	static const char bare[] =
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":"
		"\"application/vnd.docker.distribution.manifest.v2+json\"," D2 "}]}";
	struct manifest m;
	struct err err = { 0 };
	char choice[DIGEST_LEN + 1];

	assert_int_equal(parse(text, "amd64", &m, choice), 0);
	assert_string_equal(choice, "sha256:" HEX2);
	assert_int_equal(parse(text, "arm64", &m, choice), 0);
	assert_string_equal(choice, "sha256:" HEX);
	assert_int_equal(manifest_parse(text, strlen(text), "s390x", &m, choice, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "windows/amd64"));
	assert_int_equal(parse(bare, "amd64", &m, choice), 0);
	assert_string_equal(choice, "sha256:" HEX2);
}

static void refuse(void **state)
{
	static const struct {
		const char *text;
		int want;
	} bad[] = {
		{ "", -EPROTO },
		{ "[]", -EPROTO },
		{ "{", -EPROTO },
		{ "{}", -EPROTO },
		{ "{\"schemaVersion\":1}", -ENOTSUP },
		{ "{\"schemaVersion\":2}", -EPROTO },
		{ "{\"schemaVersion\":2,\"schemaVersion\":2," CONFIG ",\"layers\":[]}", -EPROTO },
		{ "{\"schemaVersion\":2," CONFIG ",\"layers\":[],\"manifests\":[]}", -EPROTO },
		{ "{\"schemaVersion\":2," CONFIG ",\"layers\":[{}]}", -EPROTO },
		{ "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/x\"," D
		  "},\"layers\":[]}",
		  -ENOTSUP },
		{ "{\"schemaVersion\":2," CONFIG
		  ",\"layers\":[{\"mediaType\":\"application/vnd.docker."
		  "image.rootfs.foreign.diff.tar.gzip\"," D "}]}",
		  -ENOTSUP },
		{ "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"a+encrypted\"," D
		  "}]}",
		  -ENOTSUP },
		{ "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"x\"," D "}]}",
		  -ENOTSUP },
		{ "{\"schemaVersion\":2," CONFIG
		  ",\"layers\":[{\"mediaType\":\"application/vnd.oci.image."
		  "layer.v1.tar\",\"digest\":\"sha256:" HEX "\",\"size\":-1}]}",
		  -EPROTO },
		{ "{\"schemaVersion\":2," CONFIG
		  ",\"layers\":[{\"mediaType\":\"application/vnd.oci.image."
		  "layer.v1.tar\",\"digest\":\"sha256:" HEX "\",\"size\":99999999999999}]}",
		  -EFBIG },
		{ "{\"schemaVersion\":2," CONFIG
		  ",\"layers\":[{\"mediaType\":\"application/vnd.oci.image."
		  "layer.v1.tar\",\"digest\":\"sha512:" HEX "\",\"size\":1}]}",
		  -EPROTO },
		{ "{\"schemaVersion\":2,\"manifests\":[]}", -ENOTSUP },
	};
	struct manifest m;
	char choice[DIGEST_LEN + 1];

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		if (parse(bad[k].text, "amd64", &m, choice) != bad[k].want)
			fail_msg("%s", bad[k].text);
}

static void put(struct buf *b, const char *text)
{
	assert_int_equal(buf_put(b, text, strlen(text)), 0);
}

/* Parses what is in the buffer, and empties it. */
static int parse_buf(struct buf *b, struct manifest *m, char *choice, struct err *err)
{
	int r = manifest_parse((const char *)buf_data(b), buf_len(b), "amd64", m, choice, err);

	buf_clear(b);
	return r;
}

/* Too many values, too deep, too long, too many layers. */
static void limits(void **state)
{
	size_t n = 300000, len;
	struct buf b;
	char *big;
	struct manifest m;
	struct err err = { 0 };
	char choice[DIGEST_LEN + 1];

	buf_init(&b, MIB);
	put(&b, "{\"schemaVersion\":2,\"x\":[");
	for (size_t k = 0; k < n; k++)
		put(&b, "1,");
	put(&b, "1]}");
	assert_int_equal(parse_buf(&b, &m, choice, &err), -EFBIG);
	for (size_t k = 0; k < 100; k++)
		put(&b, "[");
	assert_int_equal(parse_buf(&b, &m, choice, &err), -EFBIG);

	len = IMAGE_MAX_DOCUMENT + 1;
	big = calloc(1, len);
	assert_int_equal(manifest_parse(big, len, "amd64", &m, choice, &err), -EFBIG);
	free(big);

	put(&b, "{\"schemaVersion\":2," CONFIG ",\"layers\":[");
	for (size_t k = 0; k <= IMAGE_MAX_LAYERS; k++) {
		put(&b, k ? "," : "");
		put(&b, OCI_GZ);
	}
	put(&b, "]}");
	assert_int_equal(parse_buf(&b, &m, choice, &err), -EFBIG);
	buf_fini(&b);
}

static void config(void **state)
{
	static const char text[] =
		"{\"architecture\":\"arm64\",\"variant\":\"v8\",\"os\":\"linux\",\"config\":{"
		"\"Entrypoint\":[\"/bin/a\",\"b c\"],\"Cmd\":null,\"Env\":[\"PATH=/bin\",\"X=\"],"
		"\"WorkingDir\":\"/w\",\"User\":\"1000:5\",\"StopSignal\":\"SIGQUIT\","
		"\"Labels\":{\"k\":\"v\"},\"ExposedPorts\":{\"80/tcp\":{}}},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:" HEX "\"]}}";
	static const char small[] = "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
	struct image_config c;

	assert_int_equal(image_config_parse(text, strlen(text), &c, NULL), 0);
	assert_string_equal(c.entrypoint[1], "b c");
	assert_null(c.cmd[0]);
	assert_string_equal(c.env[1], "X=");
	assert_string_equal(c.working_dir, "/w");
	assert_string_equal(c.user, "1000:5");
	assert_string_equal(c.stop_signal, "SIGQUIT");
	assert_string_equal(c.labels[0], "k");
	assert_string_equal(c.labels[1], "v");
	assert_null(c.labels[2]);
	assert_string_equal(c.variant, "v8");
	assert_string_equal(c.diff_ids[0], "sha256:" HEX);
	image_config_fini(&c);
	assert_int_equal(image_config_parse(small, strlen(small), &c, NULL), 0);
	assert_string_equal(c.os, "");
	assert_null(c.env[0]);
	assert_null(c.diff_ids[0]);
	image_config_fini(&c);
}

static void bad_config(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"rootfs\":{\"type\":\"other\",\"diff_ids\":[]}}",
		"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"x\"]}}",
		"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[1]}}",
		"{\"config\":{\"Env\":\"x\"},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
		"{\"config\":{\"Env\":[\"a\\u0000b\"]},\"rootfs\":{\"type\":\"layers\",\"diff_"
		"ids\":[]}}",
		"{\"config\":{\"Labels\":{\"a\":1}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]"
		"}}",
	};
	struct image_config c;

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		if (image_config_parse(bad[k], strlen(bad[k]), &c, NULL) != -EPROTO)
			fail_msg("%s", bad[k]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(image),  cmocka_unit_test(choice_of_platform),
		cmocka_unit_test(refuse), cmocka_unit_test(limits),
		cmocka_unit_test(config), cmocka_unit_test(bad_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
