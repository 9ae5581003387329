/* The parts of the shim that stand alone. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/crilog.h"
#include "shim/oci/oci.h"
#include "shim/pids.h"
#include "shim/pod/rootfs.h"
#include "shim/sha256.h"
#include "shim/pod/windows.h"

static char *dir;

static int set_up(void **state)
{
	struct err e = { 0 };

	dir = str_fmt("/tmp/husk-test-parts.%d", (int)getpid());
	return remove_tree(dir, &e) < 0 || mkdir_p(dir, 0700, &e) < 0;
}

static int tear_down(void **state)
{
	struct err e = { 0 };
	int r = remove_tree(dir, &e);

	free(dir);
	return r;
}

static char *in_dir(const char *name)
{
	char *p = str_fmt("%s/%s", dir, name);

	assert_non_null(p);
	return p;
}

/* ---- sha256 ---- */

static void check_sha(const char *text, const char *want)
{
	uint8_t out[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];

	sha256(text, strlen(text), out);
	hex_encode(out, sizeof(out), hex);
	assert_string_equal(hex, want);
}

/* Vectors of FIPS 180-4, and lengths around the padding. */
static void test_sha256(void **state)
{
	check_sha("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	check_sha("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	check_sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	check_sha("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		  "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
	check_sha("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		  "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

/* ---- windows ---- */

static void test_windows(void **state)
{
	struct windows *w = calloc(1, sizeof(*w));
	uint64_t a, b, c, n;
	struct err e = { 0 };
	bool is_new;

	assert_int_equal(windows_get(w, 1, 1, 1, true, &a, &n, &is_new, &e), 0);
	assert_true(is_new && n == 8 && a == 0);
	assert_int_equal(windows_get(w, 1, 1, 1, true, &b, &n, &is_new, &e), 0);
	assert_true(!is_new && a == b);
	assert_int_equal(windows_get(w, 1, 1, 1, false, &b, &n, &is_new, &e), -EBUSY);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &b, &n, &is_new, &e), 0);
	assert_true(is_new && b == 8 && n == 16);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &c, &n, &is_new, &e), -EBUSY);
	assert_int_equal(windows_get(w, 1, 3, 0, false, &c, &n, &is_new, &e), -EINVAL);
	assert_int_equal(windows_get(w, 1, 3, (8ull << 40) + 1, true, &c, &n, &is_new, &e),
			 -ENOSPC);
	assert_int_equal(windows_get(w, 1, 3, 8ull << 40, true, &c, &n, &is_new, &e), -ENOSPC);
	assert_false(windows_put(w, a));
	windows_free(w, a); /* still used */
	assert_non_null(windows_find(w, a));
	assert_true(windows_put(w, a));
	/* Being unmapped: not to be shared, its place not to be given away. */
	assert_int_equal(windows_get(w, 1, 1, 1, true, &c, &n, &is_new, &e), 0);
	assert_true(is_new && c == 24);
	windows_free(w, a);
	assert_null(windows_find(w, a));
	assert_int_equal(windows_get(w, 1, 9, 4096, true, &c, &n, &is_new, &e), 0);
	assert_true(c == 0); /* the gap */
	for (uint64_t i = 0; w->n < POD_DISKS_MAX; i++)
		assert_int_equal(windows_get(w, 2, i, 1 << 20, true, &c, &n, &is_new, &e), 0);
	assert_int_equal(windows_get(w, 3, 1, 1, true, &c, &n, &is_new, &e), -ENOSPC);
	for (size_t i = 1; i < w->n; i++)
		assert_true(w->slots[i - 1].first + w->slots[i - 1].sectors <= w->slots[i].first);
	free(w);
}

/* ---- the CRI log ---- */

#define T0 1700000000123456789ll /* 2023-11-14T22:13:20.123456789Z */
#define STAMP "2023-11-14T22:13:20.123456789Z "

static void check_log(const char *const *chunks, const char *want)
{
	struct crilog_stream s = { 0 };
	char *path = in_dir("sub/x.log"), *got;
	struct err e = { 0 };
	struct stat st;

	(void)unlink(path);
	assert_int_equal(crilog_open(path, &s.log, &e), 0);
	for (; *chunks; chunks++)
		crilog_write(&s, (const uint8_t *)*chunks, strlen(*chunks), T0);
	crilog_eof(&s, T0);
	assert_int_equal(read_file(path, MIB, &got, NULL, &e), 0);
	assert_string_equal(got, want);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	crilog_free(s.log);
	free(got);
	free(path);
}

#define CHUNKS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_crilog_lines(void **state)
{
	check_log(CHUNKS("a\nb\n"), STAMP "stdout F a\n" STAMP "stdout F b\n");
	check_log(CHUNKS("a", "b", "\nc"), STAMP "stdout F ab\n" STAMP "stdout P c\n");
	check_log(CHUNKS("\n", "\n"), STAMP "stdout F \n" STAMP "stdout F \n");
	check_log(CHUNKS("a\r\n", "b\r", "\nc\rd\n"),
		  STAMP "stdout F a\n" STAMP "stdout F b\n" STAMP "stdout F c\rd\n");
	check_log(CHUNKS("\x01\xff\n"), STAMP "stdout F \x01\xff\n");
	check_log(CHUNKS(""), "");
}

/* Every way of cutting a stream into reads gives the same lines. */
static void test_crilog_pieces(void **state)
{
	static char text[3 * CRILOG_LINE_MAX];
	struct err e = { 0 };
	char *path = in_dir("pieces.log"), *first = NULL, *got;
	const size_t cuts[] = {
		sizeof(text), 1000, CRILOG_LINE_MAX, CRILOG_LINE_MAX + 1, 4095, 37
	};

	memset(text, 'x', sizeof(text));
	text[CRILOG_LINE_MAX] = '\n';	      /* exactly the limit: one F */
	text[2 * CRILOG_LINE_MAX + 2] = '\n'; /* one more: P and F */
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		struct crilog_stream s = { 0 };

		(void)unlink(path);
		assert_int_equal(crilog_open(path, &s.log, &e), 0);
		for (size_t at = 0; at < sizeof(text); at += cuts[i])
			crilog_write(&s, (const uint8_t *)text + at,
				     MIN_OF(cuts[i], sizeof(text) - at), T0);
		crilog_eof(&s, T0);
		assert_int_equal(read_file(path, MIB, &got, NULL, &e), 0);
		if (!first) {
			first = got;
			assert_non_null(strstr(got, "stdout P "));
		} else {
			assert_string_equal(got, first);
			free(got);
		}
		crilog_free(s.log);
	}
	free(first);
	free(path);
}

static void test_crilog_reopen(void **state)
{
	struct crilog_stream s = { .is_stderr = true };
	char *path = in_dir("r/r.log"), *old = in_dir("r/r.log.1"), *sub = in_dir("r"), *got;
	struct err e = { 0 };

	assert_int_equal(crilog_open(path, &s.log, &e), 0);
	crilog_write(&s, (const uint8_t *)"one\n", 4, T0);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(crilog_reopen(s.log, &e), 0);
	crilog_write(&s, (const uint8_t *)"two\n", 4, T0);
	assert_int_equal(read_file(path, MIB, &got, NULL, &e), 0);
	assert_string_equal(got, STAMP "stderr F two\n");
	free(got);
	/* On error the old file stays in use. */
	assert_int_equal(remove_tree(sub, &e), 0);
	assert_int_equal(crilog_reopen(s.log, &e), -ENOENT);
	crilog_write(&s, (const uint8_t *)"three\n", 6, T0);
	assert_int_equal(crilog_lost(s.log), 0);
	crilog_eof(&s, T0);
	crilog_free(s.log);
	assert_int_equal(crilog_open("relative", &s.log, &e), -EINVAL);
	free(path);
	free(old);
	free(sub);
}

/* A disk that takes no more loses whole batches; what is in the file stays whole lines. */
static void test_crilog_full(void **state)
{
	struct rlimit old, small;
	struct crilog_stream s = { 0 };
	char *path = in_dir("full.log"), *got;
	struct err e = { 0 };
	size_t n;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(crilog_open(path, &s.log, &e), 0);
	small = old;
	small.rlim_cur = 1000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 100; i++)
		crilog_write(&s, (const uint8_t *)"0123456789\n", 11, T0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(crilog_lost(s.log) > 0);
	crilog_write(&s, (const uint8_t *)"after\n", 6, T0);
	assert_int_equal(read_file(path, MIB, &got, &n, &e), 0);
	assert_true(n < 1100 && str_ends(got, "F after\n"));
	for (char *save, *line = strtok_r(got, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		assert_true(str_starts(line, STAMP "stdout F "));
	crilog_free(s.log);
	free(got);
	free(path);
}

/* ---- OCI ---- */

#define SPEC(process, linux_part)                                                                  \
	"{\"ociVersion\":\"1.1.0\",\"process\":{\"args\":[\"sh\"],\"cwd\":\"/\"" process           \
	"},\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"h\",\"linux\":{"        \
	"\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}]" linux_part "}}"

static int parse(struct pb_arena *a, const char *json, struct oci_spec *ret, struct err *err)
{
	pb_arena_init(a, OCI_MEMORY_MAX);
	*err = (struct err){ 0 };
	return oci_parse(a, json, strlen(json), ret, err);
}

static void refused(const char *json, int code, const char *names)
{
	struct pb_arena a;
	struct oci_spec spec;
	struct err e;

	assert_int_equal(parse(&a, json, &spec, &e), code);
	if (!strstr(e.msg, names))
		fail_msg("\"%s\" does not name \"%s\"", e.msg, names);
	pb_arena_fini(&a);
}

static const char *cgroup_value(const struct oci_spec *s, const char *file)
{
	for (size_t i = 0; i < s->req->n_cgroup; i++) {
		if (str_eq(s->req->cgroup[i]->key, file))
			return s->req->cgroup[i]->value;
	}
	return NULL;
}

static void test_oci_good(void **state)
{
	static const char json[] = SPEC(
		",\"terminal\":true,\"consoleSize\":{\"width\":80,\"height\":25},\"env\":[\"A=b\"],"
		"\"user\":{\"uid\":1,\"gid\":2,\"additionalGids\":[3,4],\"umask\":18},"
		"\"capabilities\":{\"bounding\":[\"CAP_CHOWN\",\"CAP_CHECKPOINT_RESTORE\"]},"
		"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":1024,\"hard\":"
		"18446744073709551615}],"
		"\"noNewPrivileges\":true,\"oomScoreAdj\":-500,\"apparmorProfile\":\"\"",
		",\"seccomp\":null,\"sysctl\":{\"net.ipv4.ip_forward\":\"1\"},\"resources\":{"
		"\"memory\":{\"limit\":1048576,\"swap\":3145728},\"cpu\":{\"shares\":1024,"
		"\"quota\":"
		"50000},\"pids\":{\"limit\":-1},\"hugepageLimits\":[{\"pageSize\":\"2MB\","
		"\"limit\":0}],"
		"\"unified\":{\"memory.oom.group\":\"1\"},\"devices\":[{\"allow\":false,\"access\":"
		"\"rwm\"},{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":3,\"access\":"
		"\"rwm\"}]}");
	const Agent__Process *p;
	struct pb_arena a;
	struct oci_spec s;
	struct err e;

	if (parse(&a, json, &s, &e) < 0)
		fail_msg("%s", e.msg);
	p = s.req->process;
	assert_true(p->terminal && p->width == 80 && p->height == 25 && p->no_new_privileges);
	assert_true(p->user->uid == 1 && p->user->gid == 2 && p->user->n_additional_gids == 2);
	assert_true(p->user->umask == 022 && p->oom_score_adj == -500);
	assert_true(p->capabilities->bounding == (1 | 1ull << 40));
	assert_true(p->rlimits[0]->hard == UINT64_MAX && p->rlimits[0]->soft == 1024);
	assert_string_equal(s.req->hostname, "h");
	assert_true(s.rootfs_readonly && !s.req->privileged);
	assert_int_equal(s.req->pid_namespace, AGENT__NAMESPACE_MODE__PRIVATE);
	assert_int_equal(s.req->ipc_namespace, AGENT__NAMESPACE_MODE__POD);
	assert_string_equal(cgroup_value(&s, "memory.max"), "1048576");
	assert_string_equal(cgroup_value(&s, "memory.swap.max"), "2097152");
	assert_string_equal(cgroup_value(&s, "cpu.weight"), "39");
	assert_string_equal(cgroup_value(&s, "cpu.max"), "50000 100000");
	assert_string_equal(cgroup_value(&s, "pids.max"), "max");
	assert_string_equal(cgroup_value(&s, "memory.oom.group"), "1");
	assert_string_equal(s.req->sysctls[0]->value, "1");
	pb_arena_fini(&a);
	/* The last word is "allow all": a privileged container. */
	assert_int_equal(parse(&a,
			       SPEC("",
				    ",\"resources\":{\"devices\":[{\"allow\":true,"
				    "\"access\":\"rwm\"}]}"),
			       &s, &e),
			 0);
	assert_true(s.req->privileged);
	pb_arena_fini(&a);
}

static void test_oci_refused(void **state)
{
	refused("{", -EINVAL, "line 1");
	refused("[]", -EINVAL, "object");
	refused("{\"linux\":{}}", -EINVAL, "process");
	refused("{\"process\":{\"args\":[],\"cwd\":\"/\"}}", -EINVAL, "args");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"x\"}}", -EINVAL, "process.cwd");
	refused("{\"process\":{\"args\":[\"a\"]}}", -EINVAL, "cwd");
	refused("{\"process\":{\"args\":[\"a\"],\"args\":[\"b\"],\"cwd\":\"/\"}}", -EINVAL, "");
	refused(SPEC(",\"selinuxLabel\":\"x\"", ""), -ENOSYS, "process.selinuxLabel");
	refused(SPEC(",\"new\":1", ""), -ENOSYS, "process.new");
	refused(SPEC(",\"user\":{\"uid\":-1}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":4294967295}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":1.5}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":1,\"username\":\"a\"}", ""), -EINVAL, "process.user");
	refused(SPEC(",\"capabilities\":{\"bounding\":[\"CAP_X\"]}", ""), -EINVAL, "bounding");
	refused(SPEC(",\"rlimits\":[{\"type\":\"X\",\"soft\":1,\"hard\":1}]", ""), -EINVAL,
		"rlimits");
	refused(SPEC("", ",\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ERRNO\"}"), -ENOSYS,
		"linux.seccomp");
	refused(SPEC("", ",\"devices\":[{\"path\":\"/dev/fuse\"}]"), -ENOSYS, "linux.devices");
	refused(SPEC("", ",\"uidMappings\":[{\"size\":1}]"), -ENOSYS, "linux.uidMappings");
	refused(SPEC("", ",\"rootfsPropagation\":\"shared\""), -ENOSYS, "rootfsPropagation");
	refused(SPEC("", ",\"resources\":{\"blockIO\":{\"weight\":10}}"), -ENOSYS, "blockIO");
	refused(SPEC("", ",\"resources\":{\"cpu\":{\"cpus\":\"0-1\"}}"), -ENOSYS, "cpu.cpus");
	refused(SPEC("", ",\"resources\":{\"unified\":{\"cgroup.kill\":\"1\"}}"), -EINVAL,
		"unified");
	refused(SPEC("", ",\"resources\":{\"unified\":{\"../x.y\":\"1\"}}"), -EINVAL, "unified");
	refused(SPEC("", ",\"resources\":{\"memory\":{\"limit\":10,\"swap\":5}}"), -EINVAL,
		"memory");
	refused(SPEC("",
		     ",\"resources\":{\"devices\":[{\"allow\":true,\"type\":\"b\",\"major\":8,"
		     "\"access\":\"rwm\"}]}"),
		-ENOSYS, "devices");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"},\"linux\":{\"namespaces\":[]}}",
		-ENOSYS, "namespaces");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/"
		"\"},\"linux\":{\"namespaces\":[{\"type\":"
		"\"mount\"},{\"type\":\"user\"}]}}",
		-ENOSYS, "user");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"},\"hooks\":{\"prestart\":[{}]}}",
		-ENOSYS, "hooks");
	refused("{\"mounts\":[{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"/etc\"}]}",
		-ENOSYS, "/etc on /d");
	refused("{\"mounts\":[{\"destination\":\"/d\",\"type\":\"nfs\"}]}", -ENOSYS, "nfs");
	refused("{\"mounts\":[{\"destination\":\"d\",\"type\":\"proc\"}]}", -EINVAL, "mounts");
}

/* ---- rootfs ---- */

static int open_rootfs(const char *const rows[][3], size_t n, struct rootfs **ret, struct err *err)
{
	static const char *const ro[] = { "ro", "loop" }, *const rw[] = { "rw", "loop" };
	Types__Mount m[8], *list[8];

	for (size_t i = 0; i < n; i++) {
		types__mount__init(&m[i]);
		m[i].type = (char *)rows[i][0];
		m[i].source = (char *)rows[i][1];
		if (rows[i][2]) {
			m[i].options = (char **)(*rows[i][2] == 'o' ? ro : rw);
			m[i].n_options = 2;
		}
		list[i] = &m[i];
	}
	*err = (struct err){ 0 };
	return rootfs_open(list, n, ret, err);
}

static void test_rootfs(void **state)
{
	char *a = in_dir("a.img"), *b = in_dir("b.img"), *fifo = in_dir("fifo");
	const char *overlay[3] = { "overlay", "overlay", NULL };
	struct windows *w = calloc(1, sizeof(*w));
	Agent__Rootfs *msg;
	struct pb_arena arena;
	struct rootfs *rf;
	struct err e = { 0 };

#define ROWS(...) ((const char *const[][3]){ __VA_ARGS__ })
#define OPEN(...)                                                                                  \
	open_rootfs(ROWS(__VA_ARGS__), sizeof(ROWS(__VA_ARGS__)) / sizeof(char *[3]), &rf, &e)
	assert_int_equal(write_file_atomic(a, "x", 1, 0600, false, &e), 0);
	assert_int_equal(write_file_atomic(b, "y", 1, 0600, false, &e), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(open_rootfs(NULL, 0, &rf, &e), -ENOSYS);
	assert_int_equal(OPEN({ "bind", "/", NULL }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "bind", "/", NULL }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, NULL }), -EINVAL);
	assert_int_equal(OPEN({ "ext4", fifo, "o" }), -EINVAL);
	assert_int_equal(OPEN({ "ext4", "/nonexistent", "o" }), -ENOENT);
	assert_int_equal(OPEN({ "ext4", a, "w" }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "ext4", b, "o" }), -EINVAL);
	assert_int_equal(
		OPEN({ "ext4", a, "w" }, { "ext4", b, "o" }, { overlay[0], overlay[1], NULL }),
		-EINVAL);
	assert_int_equal(OPEN({ "ext4", a, "o" }), 0);
	rootfs_free(rf);
	/* The same layer twice is mounted once, where it counts. */
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "ext4", a, "o" }, { "ext4", b, "w" },
			      { overlay[0], overlay[1], NULL }),
			 0);
	assert_int_equal(rf->n, 2);
	assert_int_equal(rootfs_assign(rf, w, &e), 0);
	pb_arena_init(&arena, MIB);
	assert_int_equal(rootfs_describe(rf, &arena, &msg, &e), 0);
	assert_true(msg->n_lower == 1 && msg->lower[0]->readonly && msg->upper &&
		    !msg->upper->readonly && msg->upper->first_sector == rf->disks[1].first);
	pb_arena_fini(&arena);
	rootfs_free(rf);
	/* All or nothing: b is in use by the one before. */
	assert_int_equal(OPEN({ "ext4", fifo, "o" }), -EINVAL);
	assert_int_equal(
		OPEN({ "ext4", a, "o" }, { "ext4", b, "w" }, { overlay[0], overlay[1], NULL }), 0);
	assert_int_equal(rootfs_assign(rf, w, &e), -EBUSY);
	assert_int_equal(w->slots[0].users, 1);
	rootfs_free(rf);
	free(w);
	free(a);
	free(b);
	free(fifo);
}

/* ---- the record of processes ---- */

static void test_pids(void **state)
{
	struct pid_entry list[] = { { "shim", 0 }, { "vmm", 0 }, { "qemu", 0 } };
	char *path = in_dir(PIDS_FILE), *text, *changed;
	struct err e = { 0 };
	pid_t child = fork();
	int status;

	assert_int_equal(pids_kill("/nonexistent", 100, &e), 0);
	if (child == 0) {
		(void)pause();
		_exit(0);
	}
	list[1].pid = child;
	assert_int_equal(pids_write(dir, list, 3, &e), 0);
	assert_int_equal(read_file(path, 4096, &text, NULL, &e), 0);
	assert_true(str_starts(text, "vmm "));
	/* Another process with that number, by its start time: not touched. */
	changed = str_fmt("%.*s1\n", (int)strcspn(text, "\n"), text);
	assert_int_equal(write_file_atomic(path, changed, strlen(changed), 0600, false, &e), 0);
	assert_int_equal(pids_kill(dir, 100, &e), 0);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_int_equal(write_file_atomic(path, text, strlen(text), 0600, false, &e), 0);
	assert_int_equal(pids_kill(dir, 2000, &e), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(pids_kill(dir, 100, &e), 0);
	assert_int_equal(write_file_atomic(path, "vmm x y\n\n-1\nshim 1 1\n", 20, 0600, false, &e),
			 0);
	assert_int_equal(pids_kill(dir, 100, &e), 0);
	free(text);
	free(changed);
	free(path);
}

/* A `start` that still runs keeps `delete` out, and a `start` after `delete` gives up. */
static void test_pids_lock(void **state)
{
	char *path = in_dir(PIDS_LOCK);
	struct err e = { 0 };
	int fd, ready[2], status;
	uint64_t before;
	pid_t child;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		byte = 'x';
		if (pids_lock(dir, &fd, NULL) < 0 || pids_lock_check(fd, NULL) < 0 ||
		    write(ready[1], &byte, 1) != 1)
			_exit(1);
		(void)usleep(100000);
		_exit(0); /* its daemon is recorded, or it died */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	before = now_mono_ns();
	assert_int_equal(pids_lock(dir, &fd, &e), 0);
	assert_true(now_mono_ns() - before > 20 * NS_PER_MS);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(pids_lock_check(fd, &e), 0);
	assert_int_equal(pids_lock_mark(fd, &e), 0);
	(void)close(fd);
	assert_int_equal(pids_lock(dir, &fd, &e), 0);
	assert_int_equal(pids_lock_check(fd, &e), -ESTALE);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(pids_lock_check(fd, &e), -ESTALE);
	(void)close(fd);
	assert_int_equal(pids_lock("/nonexistent", &fd, &e), -ENOENT);
	(void)close(ready[0]);
	(void)close(ready[1]);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256),	      cmocka_unit_test(test_windows),
		cmocka_unit_test(test_crilog_lines),  cmocka_unit_test(test_crilog_pieces),
		cmocka_unit_test(test_crilog_reopen), cmocka_unit_test(test_crilog_full),
		cmocka_unit_test(test_oci_good),      cmocka_unit_test(test_oci_refused),
		cmocka_unit_test(test_rootfs),	      cmocka_unit_test(test_pids),
		cmocka_unit_test(test_pids_lock),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
