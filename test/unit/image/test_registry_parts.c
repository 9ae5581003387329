/* The parts of the registry client that know no network: when to try again, what a
 * 401 says, where bytes go. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/failure.h"
#include "image/registry/auth.h"
#include "image/registry/retry.h"
#include "image/registry/sink.h"

static void delays(void **state)
{
	/* doubled, never beyond the cap, never less than half of it */
	for (unsigned k = 1, want = 500; k < 40; k++, want = MIN_OF(2 * want, RETRY_CAP_MS)) {
		assert_int_equal(retry_delay_ms(500, k, 0, 0), want);
		assert_int_equal(retry_delay_ms(500, k, UINT32_MAX, 0), want - want / 2);
	}
	assert_int_equal(retry_delay_ms(500, 1, 0, 7), 7000);
	assert_int_equal(retry_delay_ms(500, 1, 0, 1u << 30), RETRY_MAX_AFTER_S * 1000);
	assert_int_equal(retry_delay_ms(0, 3, 0, 0), 0);
}

static void kinds(void **state)
{
	static const long again[] = { 408, 429, 500, 502, 503, 504 };
	static const long never[] = { 400, 401, 403, 404, 405, 416, 501, 505 };

	for (size_t k = 0; k < ARRAY_SIZE(again); k++)
		assert_true(retry_status(again[k]));
	for (size_t k = 0; k < ARRAY_SIZE(never); k++)
		assert_false(retry_status(never[k]));
	assert_true(failure_unavailable(-ECONNREFUSED));
	assert_false(failure_unavailable(-EPROTO));
	assert_false(failure_unavailable(-ENOSPC));
}

static void challenge(void **state)
{
	static const char bearer[] =
		" Bearer realm=\"https://auth.example/token\",service=\"reg\","
		"scope=\"repository:a/b:pull\"";
	static const char *const bad[] = {
		"Bearer",	    "Bearer realm",	    "Bearer realm=",
		"Bearer realm=\"x", "Bearer service=\"x\"", "Bearer realm=\"a\nb\"",
		"Bearer =x"
	};
	struct auth_challenge c = { 0 };

	assert_int_equal(auth_challenge_parse(bearer, strlen(bearer), &c), 0);
	assert_int_equal(c.scheme, AUTH_BEARER);
	assert_string_equal(c.realm, "https://auth.example/token");
	assert_string_equal(c.service, "reg");
	assert_string_equal(c.scope, "repository:a/b:pull");
	/* A weaker one later does not take its place, an unknown one is no error. */
	assert_int_equal(auth_challenge_parse("Basic realm=\"x\"", 15, &c), 0);
	assert_int_equal(auth_challenge_parse("Negotiate", 9, &c), 0);
	assert_int_equal(c.scheme, AUTH_BEARER);
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		assert_int_equal(auth_challenge_parse(bad[k], strlen(bad[k]), &c), -EPROTO);
	assert_int_equal(c.scheme, AUTH_BEARER);
	memset(&c, 0, sizeof(c));
	assert_int_equal(auth_challenge_parse("basic realm=x", 13, &c), 0);
	assert_int_equal(c.scheme, AUTH_BASIC);
}

/* ---- sink ---- */

#define SIZE (3 * MIB)

struct fixture {
	uint8_t *data;
	char digest[DIGEST_LEN + 1];
	int file, pipe[2];
	struct sink s;
	size_t seen;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->data = malloc(SIZE);
	for (size_t k = 0; k < SIZE; k++)
		f->data[k] = (uint8_t)(k * 2654435761u >> 13);
	assert_int_equal(digest_of(f->data, SIZE, f->digest), 0);
	f->file = memfd_create("sink", MFD_CLOEXEC);
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	f->s.file_fd = f->s.pipe_fd = -1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	sink_fini(&f->s);
	close(f->file);
	close(f->pipe[0]);
	free(f->data);
	free(f);
	return 0;
}

static void start(struct fixture *f, uint64_t have)
{
	assert_int_equal(sink_init(&f->s, f->digest, SIZE, fcntl(f->file, F_DUPFD_CLOEXEC, 3),
				   f->pipe[1], have, NULL),
			 0);
}

/* What came out of the pipe is the next part of the blob. */
static void drain(struct fixture *f)
{
	uint8_t buf[64 * 1024];
	ssize_t n;

	while ((n = read(f->pipe[0], buf, sizeof(buf))) > 0) {
		assert_memory_equal(buf, f->data + f->seen, (size_t)n);
		f->seen += (size_t)n;
	}
}

static void feed(struct fixture *f, size_t from)
{
	while (from < SIZE) {
		size_t n = MIN_OF((size_t)70000, SIZE - from);

		assert_int_equal(sink_put(&f->s, f->data + from, n, NULL), 0);
		from += n;
		while (sink_full(&f->s)) {
			drain(f);
			assert_true(sink_flush(&f->s, NULL) >= 0);
		}
	}
	drain(f);
}

static void through(void **state)
{
	struct fixture *f = *state;
	uint8_t *kept = malloc(SIZE);

	start(f, 0);
	feed(f, 0);
	assert_int_equal(f->seen, SIZE);
	assert_int_equal(sink_verify(&f->s, NULL), 0);
	assert_int_equal(pread(f->file, kept, SIZE, 0), SIZE);
	assert_memory_equal(kept, f->data, SIZE);
	free(kept);
	assert_int_equal(sink_put(&f->s, "x", 1, NULL), -EBADMSG);
}

static void goes_on(void **state)
{
	struct fixture *f = *state;
	size_t had = 1234567;
	int r;

	assert_int_equal(write_all(f->file, f->data, had), 0);
	start(f, had);
	while (sink_replays(&f->s)) {
		r = sink_replay(&f->s, NULL);
		assert_true(r >= 0);
		drain(f);
	}
	while (sink_flush(&f->s, NULL) == 1)
		drain(f);
	drain(f);
	assert_int_equal(f->seen, had);
	assert_int_equal(f->s.done, had);
	feed(f, had);
	assert_int_equal(sink_verify(&f->s, NULL), 0);
}

static void wrong_bytes(void **state)
{
	struct fixture *f = *state;
	struct err err = { 0 };

	assert_int_equal(write_all(f->file, "XXXX", 4), 0);
	start(f, 4);
	assert_int_equal(sink_replay(&f->s, NULL), 0);
	f->data[0] = f->data[1] = f->data[2] = f->data[3] = 'X';
	feed(f, 4);
	assert_int_equal(sink_verify(&f->s, &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "wrong digest"));
}

static void shorter_than_said(void **state)
{
	struct fixture *f = *state;

	start(f, 100);
	assert_int_equal(sink_replay(&f->s, NULL), -EIO);
}

static void nobody_reads(void **state)
{
	struct fixture *f = *state;

	start(f, 0);
	close(f->pipe[0]);
	f->pipe[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(sink_put(&f->s, f->data, 100, NULL), -EPIPE);
}

static void bad_requests(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sink_init(&f->s, "sha256:x", 1, -1, f->pipe[1], 0, NULL), -EPROTO);
	/* it has closed the pipe */
	assert_int_equal(fcntl(f->pipe[1], F_GETFD), -1);
	assert_int_equal(sink_init(&f->s, f->digest, 1, -1, -1, 1, NULL), -EPROTO);
	assert_int_equal(sink_init(&f->s, f->digest, 1, dup(f->file), -1, 2, NULL), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(delays),
		cmocka_unit_test(kinds),
		cmocka_unit_test(challenge),
		cmocka_unit_test_setup_teardown(through, set_up, tear_down),
		cmocka_unit_test_setup_teardown(goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(shorter_than_said, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nobody_reads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_requests, set_up, tear_down),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
