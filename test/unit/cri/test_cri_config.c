/* huskd's settings: flags, file, errors that name the place. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cri/config.h"

static struct err e;

static int load(struct config *c, enum config_action *a, int n, ...)
{
	char *argv[16] = { (char *)"huskd" };
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		argv[i + 1] = va_arg(ap, char *);
	va_end(ap);
	e = (struct err){ 0 };
	return config_load(n + 1, argv, c, a, &e);
}

static void defaults(void **state)
{
	enum config_action a;
	struct config c;

	assert_int_equal(load(&c, &a, 0), 0);
	assert_int_equal(a, CONFIG_RUN);
	assert_string_equal(c.root, "/var/lib/husk");
	assert_string_equal(c.state, "/run/husk");
	assert_string_equal(c.listen, "unix:///run/husk/husk.sock");
	assert_string_equal(c.backend, "auto");
	assert_true(str_ends(c.shim, "/containerd-shim-husk-v2"));
	assert_null(c.kernel);
	config_fini(&c);
}

static void flags_over_file(void **state)
{
	static const char text[] =
		"# a comment\nroot: /from/file\nbackend: qemu\nvcpus: 3\n"
		"memory-mib: \"512\"\nlog-level: debug\n";
	char path[] = "/tmp/husk-config-XXXXXX";
	cleanup_fd int fd = mkstemp(path);
	enum config_action a;
	struct config c;

	assert_int_equal(write_all(fd, text, strlen(text)), 0);
	assert_int_equal(
		load(&c, &a, 6, "--backend", "kvm", "--config", path, "--listen", "/run/x.sock"),
		0);
	assert_string_equal(c.root, "/from/file");
	assert_string_equal(c.backend, "kvm");
	assert_string_equal(c.listen, "unix:///run/x.sock");
	assert_string_equal(c.log_level, "debug");
	assert_int_equal(c.vcpus, 3);
	assert_int_equal(c.memory_mib, 512);
	config_fini(&c);
	(void)unlink(path);
}

static void relative_paths(void **state)
{
	enum config_action a;
	struct config c;

	assert_int_equal(load(&c, &a, 1, "--root=some/dir"), 0);
	assert_int_equal(c.root[0], '/');
	assert_true(str_ends(c.root, "/some/dir"));
	config_fini(&c);
}

static void bad_flags(void **state)
{
	enum config_action a;
	struct config c;

	assert_int_equal(load(&c, &a, 1, "--no-such-flag"), -EINVAL);
	assert_non_null(strstr(e.msg, "--no-such-flag"));
	assert_int_equal(load(&c, &a, 1, "--root"), -EINVAL);
	assert_non_null(strstr(e.msg, "--root"));
	assert_int_equal(load(&c, &a, 2, "--backend", "xen"), -EINVAL);
	assert_non_null(strstr(e.msg, "xen"));
	assert_int_equal(load(&c, &a, 2, "--listen", "tcp://1.2.3.4:5"), -EINVAL);
	assert_int_equal(load(&c, &a, 2, "--root", ""), -EINVAL);
	assert_int_equal(load(&c, &a, 1, "word"), -EINVAL);
	assert_non_null(strstr(e.msg, "word"));
	assert_true(load(&c, &a, 2, "--config", "/no/such/file.yaml") < 0);
	assert_non_null(strstr(e.msg, "/no/such/file.yaml"));
}

static void help_and_version(void **state)
{
	enum config_action a;
	struct config c;

	assert_int_equal(load(&c, &a, 1, "--help"), 0);
	assert_int_equal(a, CONFIG_HELP);
	config_fini(&c);
	assert_int_equal(load(&c, &a, 1, "--version"), 0);
	assert_int_equal(a, CONFIG_VERSION);
	config_fini(&c);
}

static void yaml_bad(const char *text, const char *want)
{
	struct config c = { 0 };

	e = (struct err){ 0 };
	assert_int_equal(config_parse_yaml(&c, "f.yaml", text, strlen(text), &e), -EINVAL);
	if (!strstr(e.msg, want))
		fail_msg("\"%s\" has no \"%s\"", e.msg, want);
	config_fini(&c);
}

static void yaml_network(void **state)
{
	static const char text[] = "network:\n  mode: cni\n  conf-dir: /c\n  bin-dirs: [/b, rel]\n";
	enum config_action a;
	struct config c = { 0 };

	assert_int_equal(load(&c, &a, 0), 0);
	assert_string_equal(c.network_mode, "auto");
	assert_string_equal(c.network_conf_dir, "/etc/cni/net.d");
	assert_null(c.network_bin_dirs);
	assert_int_equal(config_parse_yaml(&c, "f", text, strlen(text), &e), 0);
	assert_string_equal(c.network_mode, "cni");
	assert_string_equal(c.network_conf_dir, "/c");
	assert_int_equal(strv_len(c.network_bin_dirs), 2);
	assert_string_equal(c.network_bin_dirs[0], "/b");
	assert_true(c.network_bin_dirs[1][0] == '/');
	config_fini(&c);
	yaml_bad("network:\n  mode: host\n", "f.yaml:2: network.mode: \"host\" is not one");
}

static void yaml_images(void **state)
{
	static const char text[] =
		"images:\n  keep_blobs: false\n  pinned: [a, \"b:1\"]\n"
		"vcpus: 2\n";
	enum config_action a;
	struct config c = { 0 };

	assert_int_equal(load(&c, &a, 0), 0);
	assert_true(c.keep_blobs);
	assert_null(c.pinned);
	assert_string_equal(c.hosts_dir, "/etc/containerd/certs.d");
	assert_int_equal(c.layers_at_once, 3);
	assert_int_equal(c.layers_in_all, 8);
	assert_int_equal(c.worker_uid_first, 0);
	assert_int_equal(config_parse_yaml(&c, "f", text, strlen(text), &e), 0);
	assert_false(c.keep_blobs);
	assert_int_equal(strv_len(c.pinned), 2);
	assert_string_equal(c.pinned[1], "b:1");
	assert_int_equal(c.vcpus, 2);
	config_fini(&c);
	yaml_bad("images: x\n", "f.yaml:1: images: expected settings");
	yaml_bad("images:\n  worker-uids: 10\n", "f.yaml:2: images.worker-uids: \"10\"");
	yaml_bad("images:\n  worker-uid-first: 0\n", "f.yaml:2: images.worker-uid-first: \"0\"");
	yaml_bad("images:\n  layers-at-once: 0\n", "f.yaml:2: images.layers-at-once: \"0\"");
	yaml_bad("images:\n  hosts-dir: \"\"\n", "empty value");
	yaml_bad("images:\n  keep-blobs: maybe\n", "f.yaml:2: images.keep-blobs: \"maybe\"");
	yaml_bad("images:\n  root: /a\n", "f.yaml:2: unknown setting \"images.root\"");
	yaml_bad("images:\n  pinned: a\n", "f.yaml:2: images.pinned: expected a list");
	yaml_bad("images:\n  pinned: [[a]]\n", "f.yaml:2");
	yaml_bad("images:\n  pinned: [{a: b}]\n", "f.yaml:2");
	yaml_bad("images:\n  keep-blobs: [true]\n", "f.yaml:2");
	yaml_bad("images: [a]\n", "f.yaml:1");
	yaml_bad("images:\n  images:\n    pinned: [a]\n", "f.yaml:2");
	yaml_bad("images:\n  pinned: [a]\n  pinned: [b]\n", "f.yaml:3");
	yaml_bad("pinned: [a]\n", "f.yaml:1: unknown setting \"pinned\"");
	yaml_bad("images.pinned: [a]\n", "f.yaml:1: unknown");
	yaml_bad("images:\n  pinned: [\"\"]\n", "empty value");
}

static void yaml_errors(void **state)
{
	struct config c = { 0 };

	yaml_bad("root: /a\nrooot: /b\n", "f.yaml:2: unknown setting \"rooot\"");
	yaml_bad("root: /a\n\nroot: /b\n", "f.yaml:3");
	yaml_bad("- root\n", "f.yaml:1");
	yaml_bad("root: {a: b}\n", "f.yaml:1");
	yaml_bad("root: [a]\n", "f.yaml:1");
	yaml_bad("just words\n", "f.yaml:1");
	yaml_bad("vcpus: 0\n", "vcpus");
	yaml_bad("vcpus: 1000\n", "vcpus");
	yaml_bad("vcpus: two\n", "f.yaml:1: vcpus");
	yaml_bad("root: \"/a\\0b\"\n", "NUL");
	yaml_bad("root: *x\n", "f.yaml:1");
	yaml_bad("root: /a\n  bad: indent\n", "f.yaml:2");
	yaml_bad("root:\n", "f.yaml:1: root: empty");
	assert_int_equal(config_parse_yaml(&c, "f", "", 0, &e), 0);
	assert_int_equal(config_parse_yaml(&c, "f", "# x\n", 4, &e), 0);
	assert_int_equal(config_parse_yaml(&c, "f", "---\n", 4, &e), 0);
}

static void yaml_streaming(void **state)
{
	static const char text[] = "streaming:\n  address: ::1\n  port: 10010\n";
	enum config_action a;
	struct config c = { 0 };

	assert_int_equal(load(&c, &a, 0), 0);
	assert_string_equal(c.stream_address, "127.0.0.1");
	assert_int_equal(c.stream_port, 0);
	assert_int_equal(config_parse_yaml(&c, "f", text, strlen(text), &e), 0);
	assert_string_equal(c.stream_address, "::1");
	assert_int_equal(c.stream_port, 10010);
	config_fini(&c);
	yaml_bad("streaming:\n  port: 65536\n", "f.yaml:2: streaming.port: \"65536\"");
	yaml_bad("streaming:\n  pinned: [a]\n", "f.yaml:2: unknown setting \"streaming.pinned\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),	    cmocka_unit_test(flags_over_file),
		cmocka_unit_test(relative_paths),   cmocka_unit_test(bad_flags),
		cmocka_unit_test(help_and_version), cmocka_unit_test(yaml_errors),
		cmocka_unit_test(yaml_images),	    cmocka_unit_test(yaml_streaming),
		cmocka_unit_test(yaml_network),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
