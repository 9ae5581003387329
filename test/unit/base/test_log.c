#include "test/lib/aborts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

static int pipe_fds[2];
static time_t fake_time;   /* 0 = the real one */
static time_t mono_offset; /* seconds that seem to have passed */

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r;

	if (clock != CLOCK_REALTIME || fake_time == 0) {
		r = __real_clock_gettime(clock, ts);
		if (clock == CLOCK_MONOTONIC)
			ts->tv_sec += mono_offset;
		return r;
	}
	*ts = (struct timespec){ .tv_sec = fake_time, .tv_nsec = 7000000 };
	return 0;
}

static char text[16384];

static int set_up(void **state)
{
	return pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK);
}

static int tear_down(void **state)
{
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
	return 0;
}

/* What was logged since the last call. */
static const char *logged(void)
{
	ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void levels(void **state)
{
	enum log_level lv = LOG_ERROR;

	log_init("prog", pipe_fds[1], LOG_WARN, false);
	log_debug("no");
	log_info("no");
	assert_string_equal(logged(), "");
	assert_false(log_on(LOG_INFO));
	assert_true(log_on(LOG_WARN));
	log_warn("yes");
	log_error("also");
	assert_text(logged(), " warn prog: yes\n");
	assert_text(text, " error prog: also\n");
	assert_int_equal(log_level_parse("debug", &lv), 0);
	assert_int_equal(lv, LOG_DEBUG);
	assert_int_equal(log_level_parse("verbose", &lv), -EINVAL);
	assert_int_equal(log_level_parse("", &lv), -EINVAL);
	assert_int_equal(lv, LOG_DEBUG);
	for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
		assert_int_equal(log_level_parse(log_level_name((enum log_level)i), &lv), 0);
		assert_int_equal(lv, i);
	}
}

static void text_lines(void **state)
{
	log_init("prog", pipe_fds[1], LOG_DEBUG, false);
	errno = EXDEV;
	log_info("pod ready", "pod", "abc", "note", "two words", "empty", "", "null", (char *)NULL,
		 "forged", "x\n2026 info prog: fine");
	assert_int_equal(errno, EXDEV);
	assert_text(logged(),
		    "Z info prog: pod ready pod=abc note=\"two words\" empty=\"\" null=\"\""
		    " forged=\"x\\n2026 info prog: fine\"\n");
	/* One record, one line. */
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	/* 2026-11-21T22:11:00.123Z */
	assert_int_equal(text[10], 'T');
	assert_int_equal(text[23], 'Z');
}

/* The date is computed by hand: the same as libc's for each day of four centuries. */
static void dates(void **state)
{
	char want[64];
	struct tm tm;

	log_init("prog", pipe_fds[1], LOG_DEBUG, false);
	fake_time = 1;
	for (int i = 0; i < 146100; i++, fake_time += 86400 + (i % 7) - 3) {
		assert_ptr_equal(gmtime_r(&fake_time, &tm), &tm);
		assert_true(strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.007Z ", &tm) > 0);
		log_info("x");
		if (strncmp(logged(), want, strlen(want)) != 0)
			fail_msg("%s instead of %s", text, want);
	}
	assert_int_equal(tm.tm_year, 2370 - 1900); /* so far did it get */
	fake_time = 0;
}

static void json_lines(void **state)
{
	log_init("pr\"og", pipe_fds[1], LOG_DEBUG, true);
	log_error("a \"b\" \\ c", "tab", "\t\n\x01\x7f", "utf8", "gr\xc3\xbc\xc3\x9f", "null",
		  (char *)NULL);
	assert_text(logged(),
		    "\"level\":\"error\",\"program\":\"pr\\\"og\",\"msg\":\"a \\\"b\\\" "
		    "\\\\ c\",\"tab\":\"\\u0009\\n\\u0001\\u007f\",\"utf8\":\"gr\xc3\xbc"
		    "\xc3\x9f\",\"null\":\"\"}\n");
	assert_int_equal(strncmp(text, "{\"time\":\"20", 11), 0);
}

static void set_context_a_third_time(void *arg)
{
	log_set_context("third", "x");
}

/* In front of a record's own pairs, so that a long one does not lose them. */
static void context(void **state)
{
	char big[9000], id[200];

	log_init("prog", pipe_fds[1], LOG_DEBUG, false);
	log_set_context("pod", "4f2a");
	log_info("started", "vcpus", "2");
	assert_text(logged(), " info prog: started pod=4f2a vcpus=2\n");
	log_set_context("ns", "two words");
	log_info("m");
	assert_text(logged(), " info prog: m pod=4f2a ns=\"two words\"\n");
	assert_aborts(set_context_a_third_time, NULL, "log_set_context");
	/* Again replaces, NULL removes; log_init does not touch it. */
	log_set_context("pod", "b0");
	log_set_context("ns", NULL);
	log_set_context("ns", NULL);
	log_init("prog", pipe_fds[1], LOG_DEBUG, true);
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_info("m", "k", big);
	assert_text(logged(), "\"msg\":\"m\",\"pod\":\"b0\",\"k\":\"aaa");
	/* A value that is too long is cut. */
	memset(id, 'i', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	log_set_context("pod", id);
	log_info("m");
	id[LOG_VALUE_MAX] = '\0';
	assert_text(logged(), id);
	assert_null(strstr(text, (id[LOG_VALUE_MAX] = 'i', id)));
	log_set_context("pod", NULL);
	log_info("m");
	assert_text(logged(), "\"msg\":\"m\"}\n");
}

/* Bytes that are no UTF-8 would make the line no JSON. */
static void json_of_foreign_bytes(void **state)
{
	log_init("prog", pipe_fds[1], LOG_DEBUG, true);
	log_info("m", "k",
		 "a\xff"
		 "b\xc3"
		 "c\xe2\x82"
		 "d\xc0\xaf"
		 "e\xed\xa0\x80"
		 "f\xf4\x90\x80\x80"
		 "g\xf0\x9f\x90\x9a"
		 "h\xe2\x82\xac\xc3");
	assert_text(logged(),
		    "\"k\":\"a\\ufffdb\\ufffdc\\ufffd\\ufffdd\\ufffd\\ufffde\\ufffd\\ufffd\\ufffdf"
		    "\\ufffd\\ufffd\\ufffd\\ufffdg\xf0\x9f\x90\x9ah\xe2\x82\xac\\ufffd\"}\n");
}

static void long_lines_stay_records(void **state)
{
	char big[9000];

	for (int json = 0; json < 2; json++) {
		for (int c = 0; c < 3; c++) {
			memset(big, "a\x01\xff"[c], sizeof(big) - 1);
			big[sizeof(big) - 1] = '\0';
			for (size_t cut = 0; cut < 40; cut++) {
				log_init("prog", pipe_fds[1], LOG_DEBUG, json);
				log_info("m", "first", big + cut, "second", big, "third", "x");
				assert_true(strlen(logged()) <= 4096);
				assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
				assert_text(text, json ? "\"}\n" : "\n");
			}
		}
	}
}

static void many_pairs(void **state)
{
	/* 40 pairs of about 110 bytes: more than a line holds. */
	static const char v[] =
		"0123456789012345678901234567890123456789012345678901234567890123456"
		"789012345678901234567890123456789";
#define FIVE "k", v, "k", v, "k", v, "k", v, "k", v
	log_init("prog", pipe_fds[1], LOG_DEBUG, true);
	log_info("m", FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, FIVE);
	assert_true(strlen(logged()) <= 4096);
	assert_text(text, "\"}\n");
}

/* ---- somebody else causes the lines ---- */

static void limited_line(const char *n)
{
	log_limited(LOG_WARN, "peer is odd", "n", n);
}

static unsigned count_of(const char *needle)
{
	unsigned n = 0;

	for (const char *s = text; (s = strstr(s, needle)); s++)
		n++;
	return n;
}

static void limited(void **state)
{
	log_init("prog", pipe_fds[1], LOG_INFO, false);
	for (int i = 0; i < 1000; i++)
		limited_line("1");
	/* Another place has its own number. */
	log_limited(LOG_INFO, "other");
	log_limited(LOG_DEBUG, "below the level");
	(void)logged();
	assert_int_equal(count_of("peer is odd"), LOG_SITE_LINES);
	assert_int_equal(count_of("info prog: other\n"), 1);
	/* Not before the minute is over, then with any line. */
	mono_offset += 59;
	log_info("m");
	assert_null(strstr(logged(), "held_back"));
	mono_offset += 2;
	log_info("m");
	assert_text(logged(), " warn prog: peer is odd held_back=980\n");
	assert_int_equal(count_of("\n"), 2);
	/* Told once; the next minute has as many lines. */
	for (int i = 0; i < 30; i++)
		limited_line("2");
	assert_null(strstr(logged(), "held_back"));
	assert_int_equal(count_of("peer is odd n=2\n"), LOG_SITE_LINES);
	mono_offset += 61;
	limited_line("3");
	assert_text(logged(), "peer is odd held_back=10\n");
	assert_text(text, "peer is odd n=3\n");
	assert_int_equal(count_of("\n"), 2);
	mono_offset += 61;
	limited_line("4");
	assert_null(strstr(logged(), "held_back"));
}

/* ---- nobody reads ---- */

static void fill_and_drain(int wr, int rd, bool blocking_is_kept)
{
	char big[3000];
	unsigned lines = 0;
	ssize_t n;

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_init("prog", wr, LOG_INFO, false);
	alarm(20); /* a write that blocks ends the test */
	for (int i = 0; i < 2000; i++)
		log_info(big);
	alarm(0);
	/* Other processes may have the same description: it is as they left it. */
	if (blocking_is_kept)
		assert_int_equal(fcntl(wr, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fd_set_nonblock(rd, true), 0);
	while ((n = read(rd, text, sizeof(text) - 1)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	assert_in_range(lines, 1, 1999);
	log_info("again");
	n = read(rd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	(void)snprintf(big, sizeof(big), "log lines lost: nobody read them in time lines=%u\n",
		       2000 - lines);
	assert_text(text, strchr(big, ':'));
	assert_text(text, " info prog: again\n");
	log_info("told once");
	n = read(rd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	assert_null(strstr(text, "lost"));
}

static void full_pipe(void **state)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	fill_and_drain(p[1], p[0], true);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void full_socket(void **state)
{
	int p[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
	fill_and_drain(p[1], p[0], true);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void full_terminal(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	char path[64];
	char big[3000];

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, path, sizeof(path)), 0);
	slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_init("prog", slave, LOG_INFO, false);
	alarm(20);
	for (int i = 0; i < 2000; i++)
		log_info(big);
	alarm(0);
	assert_int_equal(fcntl(slave, F_GETFL) & O_NONBLOCK, 0);
	log_init("prog", pipe_fds[1], LOG_INFO, false);
	(void)close(slave);
	(void)close(master);
}

/* With standard error closed its number may be an eventfd of a library: a line would be a number
 * there, and wake somebody. */
static void not_a_stream(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int other = memfd_create("database", MFD_CLOEXEC);
	uint64_t n;

	assert_true(fd >= 0 && other >= 0);
	log_init("prog", fd, LOG_INFO, false);
	log_info("a line");
	assert_int_equal(read(fd, &n, sizeof(n)), -1);
	assert_int_equal(errno, EAGAIN);
	/* And one that is closed, whatever has its number later. */
	(void)close(fd);
	log_init("prog", fd, LOG_INFO, false);
	assert_int_equal(dup2(other, fd), fd);
	log_info("a line");
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	(void)close(fd);
	(void)close(other);
	log_init("prog", pipe_fds[1], LOG_INFO, false);
	log_info("works");
	assert_non_null(strstr(logged(), "log lines lost"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(levels),
		T(not_a_stream),
		T(text_lines),
		T(dates),
		T(json_lines),
		T(context),
		T(json_of_foreign_bytes),
		T(long_lines_stay_records),
		T(many_pairs),
		T(limited),
		T(full_pipe),
		T(full_socket),
		T(full_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
