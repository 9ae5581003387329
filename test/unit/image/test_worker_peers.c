/*
 * huskd's ends of its image workers (fetcher, unpacker, checker), against one that keeps to the
 * protocol and several that do not. The worker is this program: what it does is in HUSK_SCENARIO.
 */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fdpass.h"
#include "base/loop.h"
#include "base/utf8.h"
#include "base/util.h"
#include "image/hosts.h"
#include "image/job/checker.h"
#include "image/job/fetcher.h"
#include "image/job/proc.h"
#include "image/job/unpacker.h"
#include "image/wire.h"

#define ID_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define BAD_TEXT "caf\xe9"

/* ==== the worker ==== */

static const char *scenario;

static bool is(const char *name)
{
	return str_eq(scenario, name);
}

static void worker_fail(const char *what)
{
	(void)dprintf(STDERR_FILENO, "worker: %s\n", what);
	_exit(9);
}

static void put(int fd, const ProtobufCMessage *m)
{
	if (wire_write(fd, m, WIRE_MAX_EVENT) < 0)
		worker_fail("write");
}

static void send_event(uint32_t id, Worker__Event__EventCase kind)
{
	Worker__Document document = WORKER__DOCUMENT__INIT;
	Worker__Progress progress = WORKER__PROGRESS__INIT;
	Worker__Failure failure = WORKER__FAILURE__INIT;
	Worker__Pushed pushed = WORKER__PUSHED__INIT;
	Worker__Images images = WORKER__IMAGES__INIT;
	Worker__Done done = WORKER__DONE__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	e.id = id;
	e.event_case = kind;
	if (kind == WORKER__EVENT__EVENT_DOCUMENT)
		e.document = &document;
	else if (kind == WORKER__EVENT__EVENT_PROGRESS)
		e.progress = &progress;
	else if (kind == WORKER__EVENT__EVENT_PUSHED)
		e.pushed = &pushed;
	else if (kind == WORKER__EVENT__EVENT_IMAGES)
		e.images = &images;
	else if (kind == WORKER__EVENT__EVENT_DONE)
		e.done = &done;
	else
		e.failure = &failure;
	document.data.data = (uint8_t *)"{}";
	document.data.len = 2;
	progress.bytes = 5;
	done.bytes = 10;
	pushed.how = WORKER__PUSHED__HOW__MOUNTED;
	images.expanded = true;
	failure.error = EACCES;
	failure.again = true;
	failure.text.data = (uint8_t *)BAD_TEXT;
	failure.text.len = strlen(BAD_TEXT);
	put(0, &e.base);
}

static Worker__Event__EventCase good_answer(const Worker__Command *c)
{
	switch (c->command_case) {
	case WORKER__COMMAND__COMMAND_PUSH:
		return WORKER__EVENT__EVENT_PUSHED;
	case WORKER__COMMAND__COMMAND_LIST:
		return WORKER__EVENT__EVENT_IMAGES;
	case WORKER__COMMAND__COMMAND_LAYER:
	case WORKER__COMMAND__COMMAND_PING:
		return WORKER__EVENT__EVENT_DONE;
	default:
		return WORKER__EVENT__EVENT_DOCUMENT;
	}
}

static void worker_answer(const Worker__Command *c)
{
	Worker__Event__EventCase good = good_answer(c);

	if (is("silent"))
		return;
	if (is("die"))
		_exit(0);
	if (is("too-long") && write(0, "\xff\xff\xff\x7f", 4) == 4)
		return;
	if (is("garbage") && write(0, "\3\0\0\0\xff\xff\xff", 7) == 7)
		return;
	if (is("unknown-id")) {
		send_event(c->id + 1, good);
	} else if (is("wrong-kind")) {
		send_event(c->id, good == WORKER__EVENT__EVENT_DOCUMENT
					  ? WORKER__EVENT__EVENT_DONE
					  : WORKER__EVENT__EVENT_DOCUMENT);
	} else if (is("failure")) {
		send_event(c->id, WORKER__EVENT__EVENT_FAILURE);
	} else if (is("process-failure")) {
		send_event(0, WORKER__EVENT__EVENT_FAILURE);
	} else {
		send_event(c->id, WORKER__EVENT__EVENT_PROGRESS);
		send_event(c->id, good);
		if (is("twice"))
			send_event(c->id, good);
		if (is("late-progress"))
			send_event(c->id, WORKER__EVENT__EVENT_PROGRESS);
	}
}

/* The descriptors of a layer and a push are there and are the right ones: each has "N" in it. */
static void worker_check_fds(const Worker__Command *c, const int *fds, size_t n)
{
	char text[2];

	if (n != wire_command_fds(c))
		worker_fail("number of descriptors");
	if (c->command_case != WORKER__COMMAND__COMMAND_LAYER &&
	    c->command_case != WORKER__COMMAND__COMMAND_PUSH)
		return;
	for (size_t k = 0; k < n; k++)
		if (pread(fds[k], text, 2, 0) != 1 || text[0] != '0' + (char)k)
			worker_fail("another descriptor");
}

static int worker_talk(void)
{
	struct pb_arena arena;
	const Worker__Command *c;
	const uint8_t *data;
	int fds[4];
	size_t n_fds = 0;
	struct buf in;
	ssize_t n;

	buf_init(&in, 2 * WIRE_MAX_COMMAND);
	pb_arena_init(&arena, WIRE_COMMAND_MEMORY);
	for (;;) {
		uint8_t *p;

		while ((n = wire_next(&in, WIRE_MAX_COMMAND, &data)) > 0) {
			if (wire_command(&arena, data, (size_t)n, &c, NULL) < 0)
				worker_fail("bad command");
			buf_consume(&in, WIRE_HEADER + (size_t)n);
			worker_check_fds(c, fds, n_fds);
			for (size_t k = 0; k < n_fds; k++)
				close(fds[k]);
			n_fds = 0;
			if (c->id)
				worker_answer(c);
		}
		if (n < 0 || buf_reserve(&in, 1, &p) < 0)
			worker_fail("bad frame");
		/* byte by byte, so that no descriptor of a later command comes too early */
		n = fdpass_receive(0, p, 1, fds, ARRAY_SIZE(fds), &n_fds, 0);
		if (n <= 0)
			return 0;
		buf_commit(&in, 1);
	}
}

static int worker_unpack(void)
{
	static const char garbage[100 * 1024];
	Worker__UnpackReport rep = WORKER__UNPACK_REPORT__INIT;
	Worker__Failure failure = WORKER__FAILURE__INIT;
	char *ids[] = { (char *)ID_A, (char *)ID_B };

	rep.diff_ids = ids;
	rep.n_diff_ids = is("two-ids") || is("two-reports") ? 2 : 1;
	if (is("die"))
		return 0;
	if (is("failure")) {
		failure.error = EBADMSG;
		failure.text.data = (uint8_t *)BAD_TEXT;
		failure.text.len = strlen(BAD_TEXT);
		rep.failure = &failure;
	}
	put(1, &rep.base);
	if (is("two-reports"))
		put(1, &rep.base);
	if (is("garbage") && write_all(1, garbage, sizeof(garbage)) < 0)
		return 0; /* huskd has seen enough */
	return 0;
}

static int worker_check(const char *kinds)
{
	Worker__CheckReport rep = WORKER__CHECK_REPORT__INIT;
	Worker__Failure failure = WORKER__FAILURE__INIT;

	for (size_t k = 0; kinds[k]; k++) {
		rep.digest = (char *)(kinds[k] == 'l' ? ID_A : ID_B);
		rep.failure = NULL;
		if (is("failure") && k == 0) {
			failure.error = EIO;
			rep.failure = &failure;
		}
		if (is("bad-digest"))
			rep.digest = (char *)"sha256:../..";
		if (is("die") && k == 1)
			return 0;
		put(1, &rep.base);
	}
	return 0;
}

/* ==== huskd ==== */

static struct loop *loop;
static struct procs procs;
static char heard[4096];
static struct err last;

static void note(const char *fmt, ...) printf_like(1, 2);
static void note(const char *fmt, ...)
{
	size_t n = strlen(heard);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(heard + n, sizeof(heard) - n, fmt, ap);
	va_end(ap);
}

static int setup(void **state)
{
	if (loop_new(&loop, NULL) < 0)
		return -1;
	return procs_init(&procs, loop, "/proc/self/exe", NULL);
}

static int teardown(void **state)
{
	procs_close(&procs);
	loop_free(loop);
	return 0;
}

static void start(const char *name)
{
	*heard = '\0';
	last = (struct err){ 0 };
	assert_int_equal(setenv("HUSK_SCENARIO", name, 1), 0);
}

/* Until `heard` has that many ends of lines. */
static void hear(size_t lines)
{
	for (;;) {
		size_t n = 0;

		for (const char *p = heard; *p; p++)
			n += *p == '\n';
		if (n >= lines)
			return;
		if (loop_once(loop, 20000) <= 0)
			fail_msg("heard only \"%s\"", heard);
	}
}

/* ---- fetcher ---- */

static void on_document(void *arg, uint32_t id, const void *data, size_t len)
{
	note("document %u %.*s\n", id, (int)len, (const char *)data);
}

static void on_images(void *arg, uint32_t id, const Worker__Images *images)
{
	note("images %u %zu\n", id, images->n_images);
}

static void on_fetched(void *arg, uint32_t id, uint64_t bytes)
{
	note("done %u %llu\n", id, (unsigned long long)bytes);
}

static void on_pushed(void *arg, uint32_t id, enum fetcher_pushed how)
{
	note("pushed %u %s\n", id, how == FETCHER_MOUNTED ? "mounted" : "?");
}

static void on_progress(void *arg, uint32_t id, uint64_t bytes)
{
	note("progress %u %llu, ", id, (unsigned long long)bytes);
}

static void on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	last = *err;
	assert_true(utf8_valid(err->msg));
	note("error %u %d%s\n", id, code, again ? " again" : "");
}

static const struct fetcher_ops ops = {
	.document = on_document,
	.images = on_images,
	.done = on_fetched,
	.pushed = on_pushed,
	.progress = on_progress,
	.error = on_error,
};

static struct fetcher *fetcher(bool from_archive)
{
	static struct hosts hosts = { .v[0] = { .url = (char *)"https://r.example/v2" }, .n = 1 };
	struct fetcher_options o = { .host = "r.example",
				     .hosts = &hosts,
				     .from_archive = from_archive };
	cleanup_fd int archive = memfd_create("archive", MFD_CLOEXEC);
	struct err err = { 0 };
	struct fetcher *f;

	o.archive_fd = archive;
	assert_ok(fetcher_new(&procs, &o, &ops, NULL, &f, &err), &err);
	return f;
}

static int numbered(char digit)
{
	int fd = memfd_create("n", MFD_CLOEXEC);

	assert_int_equal(write(fd, &digit, 1), 1);
	return fd;
}

static void test_fetch(void **state)
{
	cleanup_fd int a = numbered('0'), b = numbered('1');
	const struct fetcher_layer both = { ID_A, 10, a, 1, b }, pipe = { ID_A, 10, -1, 0, a };
	const struct fetcher_push push = { "a/b", ID_A, 10, a, NULL, NULL, NULL };
	struct fetcher *f;

	start("good");
	f = fetcher(false);
	assert_int_equal(fetcher_manifest(f, 1, "a/b", "latest", NULL), 0);
	hear(1);
	assert_int_equal(fetcher_blob(f, 1, "a/b", ID_A, 2, NULL), 0); /* the same id again */
	hear(2);
	assert_int_equal(fetcher_layer(f, 7, "a/b", &both, NULL), 0);
	assert_int_equal(fetcher_layer(f, 8, "a/b", &pipe, NULL), 0);
	assert_int_equal(fetcher_push(f, 9, &push, NULL), 0);
	assert_int_equal(fetcher_ping(f, UINT32_MAX, NULL), 0);
	hear(6);
	fetcher_free(f);
	assert_string_equal(heard,
			    "progress 1 5, document 1 {}\n"
			    "progress 1 5, document 1 {}\n"
			    "progress 7 5, done 7 10\n"
			    "progress 8 5, done 8 10\n"
			    "progress 9 5, pushed 9 mounted\n"
			    "progress 4294967295 5, done 4294967295 10\n");
}

static void test_archive(void **state)
{
	cleanup_fd int expand = memfd_create("expand", MFD_CLOEXEC);
	struct fetcher *f;

	start("good");
	f = fetcher(true);
	assert_int_equal(fetcher_list(f, 1, expand, NULL), 0);
	hear(1);
	assert_string_equal(heard, "progress 1 5, images 1 0\n");
	fetcher_free(f);
}

/* What a worker must not say ends the talk; nothing is taken for an answer but one. */
static void test_fetch_lies(void **state)
{
	static const struct {
		const char *scenario, *heard, *text;
	} lies[] = {
		{ "unknown-id", "error 0 -71\n", "not under way" },
		{ "wrong-kind", "error 0 -71\n", "another kind of request" },
		{ "twice", "progress 3 5, document 3 {}\nerror 0 -71\n", "not under way" },
		{ "late-progress", "progress 3 5, document 3 {}\nerror 0 -71\n", "not under way" },
		{ "too-long", "error 0 -71\n", "a message of no bytes, or of more than" },
		{ "garbage", "error 0 -71\n", "malformed message" },
		{ "die", "error 0 -5\n", "ended before its work was done" },
		{ "process-failure", "error 0 -13\n", "caf?" },
		{ "failure", "error 3 -13 again\n", "caf?" },
	};

	for (size_t k = 0; k < ARRAY_SIZE(lies); k++) {
		struct fetcher *f;

		start(lies[k].scenario);
		f = fetcher(false);
		assert_int_equal(fetcher_manifest(f, 3, "a/b", "latest", NULL), 0);
		hear(strchr(lies[k].heard, '\n')[1] ? 2 : 1);
		assert_string_equal(heard, lies[k].heard);
		assert_text(last.msg, lies[k].text);
		fetcher_free(f);
	}
}

static void test_many_requests(void **state)
{
	struct err err = { 0 };
	struct fetcher *f;

	start("silent");
	f = fetcher(false);
	for (uint32_t k = 1; k <= WIRE_MAX_REQUESTS; k++)
		assert_int_equal(fetcher_ping(f, k, NULL), 0);
	assert_int_equal(fetcher_ping(f, 100, &err), -EBUSY);
	assert_text(err.msg, "more than 16 requests");
	fetcher_free(f);
}

/* ---- unpacker ---- */

static void on_unpacked(void *arg, int code, const char *diff_id, const struct err *err)
{
	last = *err;
	assert_true(utf8_valid(err->msg));
	note("%d %.9s\n", code, diff_id ? diff_id : "-");
}

static void unpack(const char *name, const char *want, const char *text)
{
	struct unpacker *u;
	struct err err = { 0 };
	struct stat st;
	char *path;
	int fd;

	start(name);
	path = str_fmt("/tmp/husk-peers-%d.ext4", getpid());
	assert_ok(unpacker_new(&procs, path, MEDIA_GZIP, ID_A, 0, on_unpacked, NULL, &u, &fd, &err),
		  &err);
	fd_close(&fd);
	hear(1);
	assert_string_equal(heard, want);
	assert_text(last.msg, text);
	assert_int_equal(stat(path, &st), 0);
	unpacker_free(u);
	assert_int_equal(stat(path, &st), -1);
	free(path);
}

static void test_unpack(void **state)
{
	unpack("good", "0 sha256:aa\n", "");
	unpack("failure", "-74 -\n", "caf?");
	unpack("die", "-5 -\n", "ended before its work was done");
	unpack("two-ids", "-71 -\n", "2 digests for 1 layers");
	unpack("two-reports", "-71 -\n", "not one report");
	unpack("garbage", "-71 -\n", "report");
}

static void unpack_merged(const char *name, const char *second, const char *want)
{
	struct unpacker_layer l[2] = { { MEDIA_GZIP, ID_A, -1 }, { MEDIA_PLAIN, second, -1 } };
	cleanup_fd int blob = memfd_create("blob", MFD_CLOEXEC);
	struct unpacker *u;
	struct err err = { 0 };
	char *path;

	start(name);
	l[0].fd = l[1].fd = blob;
	path = str_fmt("/tmp/husk-peers-%d.ext4", getpid());
	assert_ok(
		unpacker_new_merged(&procs, path, ID_B, l, 2, true, 0, on_unpacked, NULL, &u, &err),
		&err);
	hear(1);
	assert_string_equal(heard, want);
	unpacker_free(u);
	free(path);
}

static void test_unpack_merged(void **state)
{
	unpack_merged("two-ids", ID_B, "0 sha256:bb\n");
	unpack_merged("two-ids", ID_A, "-74 -\n");
	assert_text(last.msg, "part 2 of 2");
	unpack_merged("good", ID_B, "-71 -\n");
}

/* ---- checker ---- */

static void on_checked(void *arg, int code, const char *digest, const struct err *err)
{
	last = *err;
	note("%d %.9s\n", code, digest);
}

static void check_three(const char *name, size_t lines, const char *want)
{
	struct checker_file files[3] = { { .is_layer = true },
					 { .is_layer = false },
					 { .is_layer = true } };
	cleanup_fd int fd = memfd_create("file", MFD_CLOEXEC);
	struct err err = { 0 };
	struct checker *c;

	start(name);
	files[0].fd = files[1].fd = files[2].fd = fd;
	assert_ok(checker_new(&procs, files, 3, false, on_checked, NULL, &c, &err), &err);
	hear(lines);
	assert_string_equal(heard, want);
	checker_free(c);
}

static void test_check(void **state)
{
	check_three("good", 3, "0 sha256:aa\n0 sha256:bb\n0 sha256:aa\n");
	check_three("failure", 3, "-5 \n0 sha256:bb\n0 sha256:aa\n");
	check_three("die", 2, "0 sha256:aa\n-3 \n");
	assert_text(last.msg, "ended before its work was done");
	check_three("bad-digest", 1, "-71 \n");
	assert_text(last.msg, "broke its protocol");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fetch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_archive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fetch_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unpack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unpack_merged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check, setup, teardown),
	};

	scenario = getenv("HUSK_SCENARIO");
	if (scenario && argc > 1 && (str_eq(argv[1], "fetch") || str_eq(argv[1], "archive")))
		return worker_talk();
	if (scenario && argc > 1 && str_eq(argv[1], "unpack"))
		return worker_unpack();
	if (scenario && argc > 2 && str_eq(argv[1], "check"))
		return worker_check(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
