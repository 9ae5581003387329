/*
 * Pods on a network whose plug-in is a script that does what a test says: what it is told, what the
 * caller hears when it hangs, dies, floods or fails, and that nothing stays behind. As root, in a
 * mount namespace of its own.
 */
#include "test/lib/unit.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "cri/net/net.h"
#include "test/lib/tmpdir.h"

#define WAIT_MS 20000u
#define PLUGIN_MS 400u /* what hangs is killed after this */
#define RETRY_MS 50u

#define CONF(version, more)                                                                        \
	"{\"cniVersion\":\"" version "\",\"name\":\"n\"," more                                     \
	"\"plugins\":[{\"type\":\"fake\",\"capabilities\":{\"dns\":true}}]}"

static const char script[] =
	"#!/bin/sh\n"
	"cd $(dirname $0)\n"
	"cat >stdin.$CNI_COMMAND\n"
	"echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME ${CNI_NETNS:-none} $CNI_ARGS\" >>calls\n"
	"case $(cat mode.$CNI_COMMAND 2>/dev/null) in\n"
	"hang) sleep 1000 & echo $! >sleeper; wait ;;\n"
	"garbage) echo '{\"cniVersion\": '; exit ;;\n"
	"flood) head -c 10000000 /dev/zero; exit ;;\n"
	"killed) kill -9 $$ ;;\n"
	"fail) echo '{\"code\": 11, \"msg\": \"no room\", \"details\": \"try later\"}'; exit 1 "
	";;\n"
	"words) echo 'oh dear' >&2; exit 3 ;;\n"
	"quiet) exit ;;\n"
	"old) echo '{\"cniVersion\": \"1.1.0\", \"supportedVersions\": [\"1.0.0\"]}'; exit ;;\n"
	"esac\n"
	"case $CNI_COMMAND in\n"
	"ADD) echo '{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"br\"},"
	"	{\"name\": \"eth0\", \"sandbox\": \"'$CNI_NETNS'\"}], \"ips\":"
	"	[{\"address\": \"10.1.2.3/24\", \"interface\": 1}, {\"address\": \"fd00::3/64\","
	"	\"interface\": 1}, {\"address\": \"10.9.9.9/24\", \"interface\": 0}]}' ;;\n"
	"VERSION) echo '{\"cniVersion\": \"1.1.0\", \"supportedVersions\": [\"1.0.0\", \"1.1.0\"]}'"
	" ;;\n"
	"esac\n";

static struct {
	struct loop *loop;
	struct net *net;
	unsigned adds, dels; /* that were answered */
	int code;	     /* of the last answer */
	struct err err;
	char addresses[200];
} g;

/* ---- files ---- */

static void put(const char *name, const char *text)
{
	cleanup_free char *path = in_tmpdir(name);
	struct err err = { 0 };

	assert_ok(write_file_atomic(path, text, strlen(text), 0755, false, &err), &err);
}

static void drop(const char *name)
{
	cleanup_free char *path = in_tmpdir(name);

	(void)unlink(path);
}

/* Of a file below the directory; "" where it is not there. */
static char *get(const char *name)
{
	cleanup_free char *path = in_tmpdir(name);
	char *text = NULL;
	size_t len;

	return read_file(path, MIB, &text, &len, NULL) == 0 ? text : strdup("");
}

static unsigned files(const char *name)
{
	cleanup_free char *path = in_tmpdir(name);
	DIR *d = opendir(path);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		(void)closedir(d);
	return n;
}

static bool nothing_left(void)
{
	return files("records") == 0 && files("netns") == 0;
}

static void assert_calls(const char *want)
{
	cleanup_free char *calls = get("bin/calls");

	assert_text(calls, want);
}

static bool there(const char *name)
{
	cleanup_free char *path = in_tmpdir(name);

	return access(path, F_OK) == 0;
}

/* ---- running ---- */

static void on_add(void *arg, int code, const struct net_result *res, const struct err *err)
{
	g.adds++;
	g.code = code;
	g.err = *err;
}

static void on_end(void *arg, int code, const struct err *err)
{
	g.dels++;
	g.code = code;
	g.err = *err;
}

#define run_until(cond)                                                                            \
	do {                                                                                       \
		uint64_t end_ = now_mono_ns() + WAIT_MS * NS_PER_MS;                               \
		while (!(cond)) {                                                                  \
			assert_true(now_mono_ns() < end_);                                         \
			assert_true(loop_once(g.loop, 20) >= 0);                                   \
		}                                                                                  \
	} while (0)

static void open_net(void)
{
	cleanup_free char *dir = in_tmpdir("records"), *conf = in_tmpdir("conf");
	cleanup_free char *netns = in_tmpdir("netns"), *bin = in_tmpdir("bin");
	char *bins[] = { (char *)"/nonexistent", bin, NULL };
	struct net_options o = { .loop = g.loop,
				 .dir = dir,
				 .conf_dir = conf,
				 .bin_dirs = bins,
				 .netns_dir = netns,
				 .plugin_ms = PLUGIN_MS,
				 .retry_ms = RETRY_MS };
	struct err err = { 0 };

	assert_ok(net_open(&o, &g.net, &err), &err);
}

static void add(const char *id)
{
	char *servers[] = { (char *)"10.0.0.10" };
	Cri__PodSandboxMetadata meta = CRI__POD_SANDBOX_METADATA__INIT;
	Cri__PodSandboxConfig pod = CRI__POD_SANDBOX_CONFIG__INIT;
	Cri__DNSConfig dns = CRI__DNSCONFIG__INIT;
	struct err err = { 0 };

	meta.name = (char *)"web";
	meta.namespace_ = (char *)"ns";
	meta.uid = (char *)"u";
	dns.n_servers = 1;
	dns.servers = servers;
	pod.metadata = &meta;
	pod.dns_config = &dns;
	assert_ok(net_add(g.net, id, &pod, on_add, NULL, &err), &err);
}

static void del(const char *id)
{
	struct err err = { 0 };

	assert_ok(net_del(g.net, id, on_end, NULL, &err), &err);
}

static int setup(void **state)
{
	static const char *const dirs[] = { "bin", "conf", "records", "netns" };

	assert_int_equal(tmpdir_make(state), 0);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		cleanup_free char *path = in_tmpdir(dirs[i]);

		assert_int_equal(mkdir(path, 0755), 0);
	}
	put("bin/fake", script);
	put("conf/10.conflist", CONF("1.0.0", ""));
	memset(&g, 0, sizeof(g));
	assert_int_equal(loop_new(&g.loop, NULL), 0);
	open_net();
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *netns = in_tmpdir("netns");

	net_close(g.net);
	loop_free(g.loop);
	(void)umount2(netns, MNT_DETACH);
	return tmpdir_remove(state);
}

/* ---- tests ---- */

static bool in_force(const char *file)
{
	struct net_status s;

	net_status(g.net, &s);
	return s.file && str_ends(s.file, file);
}

static void life(void **state)
{
	cleanup_free char *in_add = NULL, *in_del = NULL;
	struct err err = { 0 };
	struct net_addr a[4];
	struct net_view v;
	char text[46];

	add("p1");
	run_until(g.adds == 1);
	assert_ok(g.code, &g.err);
	assert_int_equal(net_find(g.net, "p1", &v), 0);
	/* Not what is on another interface. */
	assert_int_equal(net_addresses(&v, a, ARRAY_SIZE(a)), 2);
	net_addr_format(&a[1], text);
	assert_string_equal(text, "fd00::3");
	assert_calls("ADD p1 eth0 /");
	assert_calls("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=p1");
	in_add = get("bin/stdin.ADD");
	assert_text(in_add, "\"runtimeConfig\":{\"dns\":{\"servers\":[\"10.0.0.10\"]}}");
	/* A network that comes later is not this pod's. */
	put("conf/00.conflist", CONF("0.4.0", "\"other\":true,"));
	run_until(in_force("00.conflist"));
	del("p1");
	del("p1"); /* joined */
	assert_int_equal(net_find(g.net, "p1", &v), -ENOENT);
	run_until(g.dels == 2);
	assert_ok(g.code, &g.err);
	in_del = get("bin/stdin.DEL");
	assert_text(in_del, "\"prevResult\":{\"cniVersion\":\"1.0.0\"");
	assert_null(strstr(in_del, "other"));
	assert_true(nothing_left());
	assert_int_equal(net_del(g.net, "p1", on_end, NULL, &err), -ENOENT);
}

/* What goes wrong in ADD is told with the plug-in's name and words, and taken back. */
static void add_fails(void **state)
{
	static const struct {
		const char *mode, *text;
		int code;
	} cases[] = {
		{ "fail", "plug-in fake: no room: try later (code 11)", -EIO },
		{ "words", "plug-in fake failed with status 3", -EIO },
		{ "words", "oh dear", -EIO },
		{ "killed", "plug-in fake was killed by signal 9", -EIO },
		{ "garbage", "plug-in fake printed no result: not JSON", -EPROTO },
		{ "quiet", "plug-in fake printed nothing", -EPROTO },
		{ "flood", "plug-in fake printed more than 1024 KiB and was killed", -EFBIG },
		{ "hang", "plug-in fake did not end within 400 ms and was killed", -ETIMEDOUT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char id[8], call[32];

		(void)snprintf(id, sizeof(id), "p%zu", i);
		(void)snprintf(call, sizeof(call), "DEL %s eth0 /", id);
		put("bin/mode.ADD", cases[i].mode);
		g.adds = 0;
		add(id);
		run_until(g.adds == 1);
		assert_int_equal(g.code, cases[i].code);
		assert_text(err_text(&g.err), cases[i].text);
		run_until(nothing_left());
		assert_calls(call);
	}
}

/* If perhaps not reaped. */
static bool is_dead(const char *pid)
{
	cleanup_free char *path = str_fmt("/proc/%s/exe", pid);
	char to[8];

	return readlink(path, to, sizeof(to)) < 0;
}

/* What a plug-in started is killed with it. */
static void hang_kills_children(void **state)
{
	cleanup_free char *pid = NULL;
	int64_t n = 0;

	put("bin/mode.ADD", "hang");
	add("p");
	run_until(g.adds == 1);
	pid = get("bin/sleeper");
	pid[strcspn(pid, "\n")] = '\0';
	assert_int_equal(str_to_i64(pid, 2, INT32_MAX, &n), 0);
	run_until(is_dead(pid));
	run_until(nothing_left());
}

/* A DEL that fails is told, and tried again until it goes through. */
static void del_fails(void **state)
{
	add("p");
	run_until(g.adds == 1);
	assert_ok(g.code, &g.err);
	put("bin/mode.DEL", "fail");
	del("p");
	run_until(g.dels == 1);
	assert_int_equal(g.code, -EIO);
	assert_text(err_text(&g.err), "plug-in fake: no room: try later (code 11)");
	assert_false(nothing_left());
	put("bin/mode.DEL", "hang");
	del("p");
	run_until(g.dels == 2);
	assert_int_equal(g.code, -ETIMEDOUT);
	drop("bin/mode.DEL");
	run_until(nothing_left());
	assert_int_equal(g.dels, 2);
}

static void del_ends_add(void **state)
{
	put("bin/mode.ADD", "hang");
	add("p");
	run_until(there("bin/sleeper")); /* it is at work */
	del("p");
	run_until(g.adds == 1 && g.dels == 1);
	assert_ok(g.code, &g.err);
	assert_true(nothing_left());
	/* One that is cancelled does not answer, and is taken back, too. */
	add("p");
	net_add_cancel(g.net, "p");
	run_until(nothing_left());
	assert_int_equal(g.adds, 1);
}

/* More than may run at a time: all of them get their turn, also those that are deleted before. */
static void many(void **state)
{
	char id[16];

	for (unsigned i = 0; i < 2 * NET_AT_ONCE_MAX; i++) {
		(void)snprintf(id, sizeof(id), "p%u", i);
		add(id);
	}
	for (unsigned i = 1; i < 2 * NET_AT_ONCE_MAX; i += 2) {
		(void)snprintf(id, sizeof(id), "p%u", i);
		del(id);
	}
	run_until(g.adds == 2 * NET_AT_ONCE_MAX && g.dels == NET_AT_ONCE_MAX);
	assert_int_equal(files("netns"), NET_AT_ONCE_MAX);
	for (unsigned i = 0; i < 2 * NET_AT_ONCE_MAX; i += 2) {
		(void)snprintf(id, sizeof(id), "p%u", i);
		del(id);
	}
	run_until(g.dels == 2 * NET_AT_ONCE_MAX);
	assert_true(nothing_left());
}

static bool keep_p1(void *arg, const char *id)
{
	return str_eq(id, "p1");
}

/* The next huskd knows what there is, and takes back what nobody has. */
static void reopened(void **state)
{
	struct net_view v;

	add("p1");
	add("p2");
	run_until(g.adds == 2);
	put("bin/mode.ADD", "hang");
	add("p3");
	run_until(there("bin/sleeper"));
	net_close(g.net);
	open_net();
	assert_int_equal(net_find(g.net, "p1", &v), 0);
	assert_string_equal(v.network, "n");
	assert_int_equal(v.result->n_ips, 3);
	assert_int_equal(net_find(g.net, "p3", &v), -ENOENT);
	drop("bin/calls");
	net_reap(g.net, keep_p1, NULL);
	run_until(files("netns") == 1);
	assert_calls("DEL p2 eth0 /");
	assert_calls("DEL p3 eth0 /");
	/* A namespace that is gone is no name for plug-ins. */
	{
		cleanup_free char *netns = in_tmpdir("netns/husk-p1");

		assert_int_equal(umount2(netns, MNT_DETACH), 0);
	}
	del("p1");
	run_until(g.dels == 1);
	assert_ok(g.code, &g.err);
	assert_calls("DEL p1 eth0 none");
	assert_true(nothing_left());
}

static bool status_says(bool ready, const char *part)
{
	struct net_status s;

	net_status(g.net, &s);
	return s.ready == ready && strstr(s.message, part) &&
	       str_eq(s.reason, ready ? "" : "NetworkPluginNotReady");
}

static void readiness(void **state)
{
	cleanup_free char *conf = in_tmpdir("conf"), *away = in_tmpdir("away");
	Cri__PodSandboxConfig pod = CRI__POD_SANDBOX_CONFIG__INIT;
	struct err err = { 0 };

	assert_true(status_says(true, ""));
	put("conf/05.conf", "{\"cniVersion\":\"7.0.0\",\"name\":\"n\",\"type\":\"fake\"}");
	drop("conf/10.conflist");
	run_until(status_says(false, "05.conf: cniVersion \"7.0.0\" is not known"));
	assert_int_equal(net_add(g.net, "p", &pod, on_add, NULL, &err), -ENETDOWN);
	put("conf/06.conf", "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"nothere\"}");
	run_until(status_says(false, "plug-in nothere is not in /nonexistent, "));
	put("conf/06.conf", "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"fake\"}");
	run_until(status_says(true, ""));
	/* The directory itself may go and come. */
	assert_int_equal(rename(conf, away), 0);
	run_until(status_says(false, "no network configuration in "));
	assert_int_equal(rename(away, conf), 0);
	run_until(status_says(true, ""));
}

/* Of CNI 1.1: STATUS and GC, for plug-ins that know them. */
static void status_and_gc(void **state)
{
	cleanup_free char *in = NULL;
	struct err err = { 0 };

	assert_int_equal(net_gc(g.net, on_end, NULL, &err), -ENOTSUP);
	put("bin/mode.STATUS", "fail");
	put("conf/10.conflist", CONF("1.1.0", ""));
	run_until(status_says(false, "plug-in fake: no room"));
	assert_calls("VERSION ");
	add("p1");
	run_until(g.adds == 1);
	assert_ok(net_gc(g.net, on_end, NULL, &err), &err);
	add("p2"); /* waits for the end of GC, which does not know it */
	run_until(g.dels == 1 && g.adds == 2);
	assert_ok(g.code, &g.err);
	in = get("bin/stdin.GC");
	assert_text(in, "\"cni.dev/valid-attachments\":[{\"containerID\":\"p");
	/* One that knows no 1.1 is not asked. */
	put("bin/mode.VERSION", "old");
	put("conf/10.conflist", CONF("1.1.0", "\"x\":1,"));
	run_until(status_says(true, ""));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(life),	 TEST(add_fails),    TEST(hang_kills_children),
		TEST(del_fails), TEST(del_ends_add), TEST(many),
		TEST(reopened),	 TEST(readiness),    TEST(status_and_gc),
	};

	if (geteuid() != 0) {
		printf("skipped: needs root\n");
		return 77;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		printf("skipped: no mount namespace here\n");
		return 77;
	}
	log_init("test", STDERR_FILENO, LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
