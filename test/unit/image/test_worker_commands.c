/* The worker's end of its socket, in processes of their own: commands that break the rules end
 * them. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "image/wire.h"
#include "image/worker/worker.h"

struct worker {
	pid_t pid;
	int fd;
	struct buf in;
	struct pb_arena arena;
};

static void worker_start(struct worker *w, int (*run)(void))
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	w->pid = fork();
	assert_true(w->pid >= 0);
	if (!w->pid) {
		(void)dup2(sv[1], 0);
		close(sv[0]);
		close(sv[1]);
		_exit(run());
	}
	close(sv[1]);
	w->fd = sv[0];
	buf_init(&w->in, WIRE_HEADER + WIRE_MAX_EVENT);
	pb_arena_init(&w->arena, WIRE_EVENT_MEMORY);
}

static int worker_status(struct worker *w)
{
	int status = -1;

	fd_close(&w->fd);
	assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
	buf_fini(&w->in);
	pb_arena_fini(&w->arena);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void send_command(struct worker *w, const Worker__Command *c, int fd)
{
	cleanup_free uint8_t *frame = NULL;
	size_t len;

	assert_int_equal(wire_frame(&c->base, WIRE_MAX_COMMAND, &frame, &len), 0);
	assert_int_equal(fdpass_send(w->fd, frame, len, &fd, 1, 0), (ssize_t)len);
}

static void send_open(struct worker *w)
{
	cleanup_fd int fd = memfd_create("open", MFD_CLOEXEC);
	Worker__Command c = WORKER__COMMAND__INIT;
	Worker__Open open = WORKER__OPEN__INIT;

	c.command_case = WORKER__COMMAND__COMMAND_OPEN;
	c.open = &open;
	send_command(w, &c, fd);
}

/* The next event is a failure of the process or (id) of a request. */
static void assert_failure(struct worker *w, uint32_t id, int code, const char *text)
{
	const Worker__Event *e;
	const uint8_t *data;
	struct err err = { 0 };
	ssize_t n;

	while ((n = wire_next(&w->in, WIRE_MAX_EVENT, &data)) == 0)
		assert_true(buf_read_fd(&w->in, w->fd, WIRE_MAX_EVENT) > 0);
	assert_true(n > 0);
	assert_ok(wire_event(&w->arena, data, (size_t)n, &e, &err), &err);
	buf_consume(&w->in, WIRE_HEADER + (size_t)n);
	assert_int_equal(e->id, id);
	assert_int_equal(e->event_case, WORKER__EVENT__EVENT_FAILURE);
	assert_int_equal(wire_failure(e->failure, &err), code);
	assert_text(err.msg, text);
}

static const struct {
	int (*run)(void);
	const char *name;
} modes[] = { { worker_fetch, "fetch" }, { worker_archive, "archive" } };

static void test_bytes(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *text;
	} bad[] = { { "\377\377\377\177", 4, "command of no bytes, or of more than 64 KiB" },
		    { "\0\0\0\0", 4, "command of no bytes, or of more than 64 KiB" },
		    { "\3\0\0\0\377\377\377", 7, "malformed message" },
		    { "{\"op\": \"open\"}\n", 15, "command of no bytes, or of more than 64 KiB" },
		    { "\2\0\0\0\022\0", 6, "command without its descriptors" },
		    { "\2\0\0\0\172\0", 6, "against the rules" } };

	for (size_t m = 0; m < ARRAY_SIZE(modes); m++) {
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
			struct worker w;

			worker_start(&w, modes[m].run);
			assert_int_equal(write(w.fd, bad[k].bytes, bad[k].len), (int)bad[k].len);
			assert_failure(&w, 0, -EPROTO, bad[k].text);
			assert_int_equal(worker_status(&w), 1);
		}
	}
}

static void test_open_comes_first_and_once(void **state)
{
	Worker__Command c = WORKER__COMMAND__INIT;
	Worker__Manifest m = WORKER__MANIFEST__INIT;
	struct worker w;

	m.reference = (char *)"latest";
	c.id = 1;
	c.command_case = WORKER__COMMAND__COMMAND_MANIFEST;
	c.manifest = &m;
	for (size_t k = 0; k < ARRAY_SIZE(modes); k++) {
		worker_start(&w, modes[k].run);
		send_command(&w, &c, -1);
		assert_failure(&w, 0, -EPROTO, "the first command is Open");
		assert_int_equal(worker_status(&w), 1);
	}
	worker_start(&w, worker_archive);
	send_open(&w);
	send_open(&w);
	assert_failure(&w, 0, -EPROTO, "the first command is Open");
	assert_int_equal(worker_status(&w), 1);
	/* for fetch the descriptor has the options, and these are none */
	worker_start(&w, worker_fetch);
	send_open(&w);
	assert_failure(&w, 0, -EPROTO, "options against the rules");
	assert_int_equal(worker_status(&w), 1);
}

/* A request that fails is answered, and the process takes the next one; one for another mode ends
 * it. */
static void test_archive_requests(void **state)
{
	Worker__Command c = WORKER__COMMAND__INIT;
	Worker__Manifest m = WORKER__MANIFEST__INIT;
	Worker__Ping p = WORKER__PING__INIT;
	struct worker w;

	m.reference = (char *)"latest";
	c.command_case = WORKER__COMMAND__COMMAND_MANIFEST;
	c.manifest = &m;
	worker_start(&w, worker_archive);
	send_open(&w);
	for (c.id = 1; c.id < 3; c.id++) {
		send_command(&w, &c, -1);
		assert_failure(&w, c.id, -EPROTO, "tar");
	}
	c.command_case = WORKER__COMMAND__COMMAND_PING;
	c.ping = &p;
	send_command(&w, &c, -1);
	assert_failure(&w, 0, -EPROTO, "is not for archive");
	assert_int_equal(worker_status(&w), 1);
}

/* huskd has closed the socket: that is the end, and no failure. */
static void test_end(void **state)
{
	for (size_t k = 0; k < ARRAY_SIZE(modes); k++) {
		struct worker w;

		worker_start(&w, modes[k].run);
		assert_int_equal(shutdown(w.fd, SHUT_WR), 0);
		assert_int_equal(buf_read_fd(&w.in, w.fd, WIRE_MAX_EVENT), 0);
		assert_int_equal(worker_status(&w), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_open_comes_first_and_once),
		cmocka_unit_test(test_archive_requests),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
