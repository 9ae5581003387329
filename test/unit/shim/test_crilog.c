/* The CRI log: lines, pieces, rotation, a full disk. */
#include "test/lib/unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/crilog.h"
#include "test/lib/tmpdir.h"

#define T0 1700000000123456789ll /* 2023-11-14T22:13:20.123456789Z */
#define STAMP "2023-11-14T22:13:20.123456789Z "

static void check_log(const char *const *chunks, const char *want)
{
	struct crilog_stream s = { 0 };
	char *path = in_tmpdir("sub/x.log"), *got;
	struct err err = { 0 };
	struct stat st;

	(void)unlink(path);
	assert_int_equal(crilog_open(path, &s.log, &err), 0);
	for (; *chunks; chunks++)
		crilog_write(&s, (const uint8_t *)*chunks, strlen(*chunks), T0);
	crilog_eof(&s, T0);
	assert_int_equal(read_file(path, MIB, &got, NULL, &err), 0);
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
	struct err err = { 0 };
	char *path = in_tmpdir("pieces.log"), *first = NULL, *got;
	const size_t cuts[] = {
		sizeof(text), 1000, CRILOG_LINE_MAX, CRILOG_LINE_MAX + 1, 4095, 37
	};

	memset(text, 'x', sizeof(text));
	text[CRILOG_LINE_MAX] = '\n';	      /* exactly the limit: one F */
	text[2 * CRILOG_LINE_MAX + 2] = '\n'; /* one more: P and F */
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		struct crilog_stream s = { 0 };

		(void)unlink(path);
		assert_int_equal(crilog_open(path, &s.log, &err), 0);
		for (size_t at = 0; at < sizeof(text); at += cuts[i])
			crilog_write(&s, (const uint8_t *)text + at,
				     MIN_OF(cuts[i], sizeof(text) - at), T0);
		crilog_eof(&s, T0);
		assert_int_equal(read_file(path, MIB, &got, NULL, &err), 0);
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
	char *path = in_tmpdir("r/r.log"), *old = in_tmpdir("r/r.log.1"), *sub = in_tmpdir("r"),
	     *got;
	struct err err = { 0 };

	assert_int_equal(crilog_open(path, &s.log, &err), 0);
	crilog_write(&s, (const uint8_t *)"one\n", 4, T0);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(crilog_reopen(s.log, &err), 0);
	crilog_write(&s, (const uint8_t *)"two\n", 4, T0);
	assert_int_equal(read_file(path, MIB, &got, NULL, &err), 0);
	assert_string_equal(got, STAMP "stderr F two\n");
	free(got);
	/* On error the old file stays in use. */
	assert_int_equal(remove_tree(sub, &err), 0);
	assert_int_equal(crilog_reopen(s.log, &err), -ENOENT);
	crilog_write(&s, (const uint8_t *)"three\n", 6, T0);
	assert_int_equal(crilog_lost(s.log), 0);
	crilog_eof(&s, T0);
	crilog_free(s.log);
	assert_int_equal(crilog_open("relative", &s.log, &err), -EINVAL);
	free(path);
	free(old);
	free(sub);
}

/* A disk that takes no more loses whole batches; what is in the file stays whole lines. */
static void test_crilog_full(void **state)
{
	struct rlimit old, small;
	struct crilog_stream s = { 0 };
	char *path = in_tmpdir("full.log"), *got;
	struct err err = { 0 };
	size_t n;
	int r = 0;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(crilog_open(path, &s.log, &err), 0);
	small = old;
	small.rlim_cur = 1000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 100; i++)
		r = crilog_write(&s, (const uint8_t *)"0123456789\n", 11, T0);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(crilog_lost(s.log) > 0);
	assert_int_equal(crilog_write(&s, (const uint8_t *)"after\n", 6, T0), 0);
	assert_int_equal(read_file(path, MIB, &got, &n, &err), 0);
	assert_true(n < 1100 && str_ends(got, "F after\n"));
	for (char *save, *line = strtok_r(got, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		assert_true(str_starts(line, STAMP "stdout F "));
	crilog_free(s.log);
	free(got);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crilog_lines),
		cmocka_unit_test(test_crilog_pieces),
		cmocka_unit_test(test_crilog_reopen),
		cmocka_unit_test(test_crilog_full),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
