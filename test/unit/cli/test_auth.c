/* Credentials in Docker's config.json and in helpers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/util.h"
#include "cli/auth/auth.h"
#include "test/lib/unit.h"

static char dir[64];

static int set_up(void **state)
{
	cleanup_free char *path = NULL;

	snprintf(dir, sizeof(dir), "/tmp/test_auth.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	path = str_fmt("%s/docker", dir);
	setenv("DOCKER_CONFIG", path, 1);
	free_ptr(&path);
	path = str_fmt("%s:/usr/bin:/bin", dir);
	return setenv("PATH", path, 1);
}

static int tear_down(void **state)
{
	return remove_tree(dir, NULL);
}

static void put(const char *name, const char *text, mode_t mode)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, name), *sub = str_fmt("%s/docker", dir);

	assert_int_equal(mkdir_p(sub, 0700, NULL), 0);
	assert_int_equal(write_file_atomic(path, text, strlen(text), mode, false, NULL), 0);
}

static json_t *config(void)
{
	cleanup_free char *path = str_fmt("%s/docker/config.json", dir);
	json_t *j = json_load_file(path, 0, NULL);

	assert_non_null(j);
	return j;
}

static void servers_of_images(void **state)
{
	static const char *const cases[][2] = {
		{ "busybox", "docker.io" },
		{ "busybox:1.36", "docker.io" },
		{ "team/app", "docker.io" },
		{ "docker.io/library/busybox", "docker.io" },
		{ "index.docker.io/library/busybox", "docker.io" },
		{ "localhost/app", "localhost" },
		{ "127.0.0.1:5000/team/app@sha256:00", "127.0.0.1:5000" },
		{ "[::1]:5000/app", "[::1]:5000" },
		{ "ghcr.example/app", "ghcr.example" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cleanup_free char *s = auth_server_of_image(cases[i][0]);

		assert_string_equal(s, cases[i][1]);
	}
	cleanup_free char *a = auth_server_of_argument(NULL);
	cleanup_free char *b = auth_server_of_argument("https://reg.example:8443/v1/");
	assert_string_equal(a, "docker.io");
	assert_string_equal(b, "reg.example:8443");
}

static void file_round_trip(void **state)
{
	struct auth a = { .username = (char *)"me", .password = (char *)"s3cret" }, got = { 0 };
	cleanup_free char *where = NULL, *path = str_fmt("%s/docker/config.json", dir);
	struct err err = { 0 };
	struct stat st;
	json_t *j;

	/* Nothing there: no credentials, no error. */
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
	assert_true(auth_empty(&got));
	assert_int_equal(auth_erase("reg.example", &err), -ENOENT);

	put("docker/config.json",
	    "{\"HttpHeaders\": {\"a\": \"b\"}, \"auths\": {\"x.example\": {}}}", 0644);
	assert_int_equal(auth_store("docker.io", &a, &where, &err), 0);
	assert_string_equal(where, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	j = config();
	assert_non_null(json_object_get(j, "HttpHeaders"));
	assert_non_null(json_object_get(json_object_get(j, "auths"), "x.example"));
	assert_string_equal(
		json_string_value(json_object_get(
			json_object_get(json_object_get(j, "auths"), "https://index.docker.io/v1/"),
			"auth")),
		"bWU6czNjcmV0");
	json_decref(j);
	assert_int_equal(auth_find("docker.io", &got, &err), 0);
	assert_string_equal(got.basic, "bWU6czNjcmV0");
	auth_fini(&got);
	assert_int_equal(auth_erase("docker.io", &err), 0);
	assert_int_equal(auth_find("docker.io", &got, &err), 0);
	assert_true(auth_empty(&got));
	j = config();
	assert_non_null(json_object_get(j, "HttpHeaders"));
	json_decref(j);
}

static void identity_tokens(void **state)
{
	struct auth a = { .username = (char *)"me",
			  .password = (char *)"s3cret",
			  .identity_token = (char *)"tok" };
	struct auth got = { 0 };
	cleanup_free char *where = NULL;
	struct err err = { 0 };

	assert_int_equal(auth_store("reg.example:5000", &a, &where, &err), 0);
	assert_int_equal(auth_find("reg.example:5000", &got, &err), 0);
	assert_string_equal(got.identity_token, "tok");
	assert_string_equal(got.basic, "bWU6"); /* no password is kept beside it */
	auth_fini(&got);
}

static void other_forms_of_a_key(void **state)
{
	struct auth got = { 0 };
	struct err err = { 0 };

	put("docker/config.json",
	    "{\"auths\": {\"https://reg.example/v2/\": {\"auth\": \"YTpi\"},"
	    " \"docker.io\": {\"username\": \"u\", \"password\": \"p\", \"auth\": \"x\"}}}",
	    0600);
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
	assert_string_equal(got.basic, "YTpi");
	auth_fini(&got);
	assert_int_equal(auth_find("docker.io", &got, &err), 0);
	assert_string_equal(got.username, "u");
	assert_null(got.basic);
	auth_fini(&got);
	assert_int_equal(auth_find("reg.example:443", &got, &err), 0);
	assert_true(auth_empty(&got));

	put("docker/config.json", "[1]", 0600);
	assert_int_equal(auth_find("reg.example", &got, &err), -EPROTO);
	assert_non_null(strstr(err.msg, "config.json"));
	put("docker/config.json", "{\"auths\": 7}", 0600);
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
}

/* A helper that keeps one file a server. */
static const char helper[] =
	"#!/bin/sh\n"
	"d=${0%/*}/kept\n"
	"mkdir -p $d\n"
	"case $1 in\n"
	"store) cat >$d/in; n=$(sed 's/.*\"ServerURL\": *\"\\([^\"]*\\)\".*/\\1/' $d/in | tr / _)\n"
	"  mv $d/in $d/$n ;;\n"
	"get) n=$(cat | tr / _); [ -e $d/$n ] || { echo 'credentials not found in native "
	"keychain'\n"
	"  exit 1; }; cat $d/$n ;;\n"
	"erase) rm $d/$(cat | tr / _) ;;\n"
	"esac\n";

static void helpers(void **state)
{
	struct auth a = { .username = (char *)"me", .password = (char *)"s3cret" }, got = { 0 };
	struct auth t = { .username = (char *)"me",
			  .password = (char *)"s3cret",
			  .identity_token = (char *)"tok" };
	cleanup_free char *where = NULL, *text = NULL;
	struct err err = { 0 };
	json_t *j;

	put("docker-credential-test", helper, 0755);
	put("docker/config.json", "{\"credHelpers\": {\"reg.example\": \"test\"}}", 0600);
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
	assert_true(auth_empty(&got));
	assert_int_equal(auth_store("reg.example", &a, &where, &err), 0);
	assert_string_equal(where, "the helper docker-credential-test");
	j = config();
	text = json_dumps(j, 0);
	assert_null(strstr(text, "bWU6"));
	json_decref(j);
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
	assert_string_equal(got.username, "me");
	assert_string_equal(got.password, "s3cret");
	auth_fini(&got);
	free_ptr(&where);
	assert_int_equal(auth_store("reg.example", &t, &where, &err), 0);
	assert_int_equal(auth_find("reg.example", &got, &err), 0);
	assert_string_equal(got.identity_token, "tok");
	auth_fini(&got);
	assert_int_equal(auth_erase("reg.example", &err), 0);
	assert_int_equal(auth_erase("reg.example", &err), -ENOENT);

	/* credsStore is for all servers; Docker's has its own key. */
	put("docker/config.json", "{\"credsStore\": \"test\"}", 0600);
	free_ptr(&where);
	assert_int_equal(auth_store("docker.io", &a, &where, &err), 0);
	assert_int_equal(auth_find("docker.io", &got, &err), 0);
	assert_string_equal(got.password, "s3cret");
	auth_fini(&got);

	put("docker/config.json", "{\"credsStore\": \"missing\"}", 0600);
	assert_int_equal(auth_find("docker.io", &got, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "docker-credential-missing"));
	put("docker/config.json", "{\"credsStore\": \"../x\"}", 0600);
	assert_int_equal(auth_find("docker.io", &got, &err), -EINVAL);
	put("docker-credential-bad", "#!/bin/sh\necho no such luck\nexit 3\n", 0755);
	put("docker/config.json", "{\"credsStore\": \"bad\"}", 0600);
	assert_int_equal(auth_find("docker.io", &got, &err), -EIO);
	assert_non_null(strstr(err.msg, "no such luck"));
	put("docker-credential-bad", "#!/bin/sh\necho '{\"Username\": 3}'\n", 0755);
	assert_int_equal(auth_find("docker.io", &got, &err), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(servers_of_images),
		cmocka_unit_test_setup_teardown(file_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(identity_tokens, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_forms_of_a_key, set_up, tear_down),
		cmocka_unit_test_setup_teardown(helpers, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
