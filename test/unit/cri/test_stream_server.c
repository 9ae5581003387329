/*
 * The streaming server with real sockets and pipes for the process: URLs, both protocols, both
 * directions held back, and clients that go or never say anything.
 */
#include "test/lib/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/util.h"
#include "cri/stream/conn.h"
#include "cri/stream/http.h"
#include "cri/stream/server.h"
#include "cri/stream/tokens.h"
#include "test/lib/spdy_client.h"

/* Time that tests have let pass. */
static uint64_t ahead_ns;
static bool long_ago;
uint64_t __real_now_mono_ns(void);
uint64_t __wrap_now_mono_ns(void);
uint64_t __wrap_now_mono_ns(void)
{
	return long_ago ? 1 : __real_now_mono_ns() + ahead_ns;
}

int __real_timerfd_settime(int fd, int flags, const struct itimerspec *its, struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *its, struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *its, struct itimerspec *old)
{
	uint64_t at = (uint64_t)its->it_value.tv_sec * NS_PER_S + (uint64_t)its->it_value.tv_nsec;
	struct itimerspec real = { 0 };

	if (at) /* 0 stops it */
		at = at > ahead_ns ? at - ahead_ns : 1;
	real.it_value.tv_sec = (time_t)(at / NS_PER_S);
	real.it_value.tv_nsec = (long)(at % NS_PER_S);
	return __real_timerfd_settime(fd, flags, &real, old);
}

/* Whoever made a URL, and the process behind it. */
struct owner {
	struct stream_session *session;
	unsigned opened, closed, input_ended;
	unsigned width, height;
	int in, out, err; /* the process's ends */
	const char *fails;
};

static struct {
	struct loop *loop;
	struct stream_server *server;
	struct owner owner;
	char *url;
	int fd;
	struct spdy_client client;
	struct buf in; /* from the server */
} g;

static int new_pipe(int *ret, bool out)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	*ret = out ? p[1] : p[0];
	return out ? p[0] : p[1];
}

static void server_test_open(struct stream_session *s, void *arg)
{
	struct owner *o = arg;
	int in, out, err;

	o->opened++;
	o->session = s;
	if (o->fails) {
		stream_fail(s, o->fails, 0);
		return;
	}
	in = new_pipe(&o->in, false);
	out = new_pipe(&o->out, true);
	err = new_pipe(&o->err, true);
	stream_run(s, in, out, err);
}

static void server_test_resize(void *arg, unsigned width, unsigned height)
{
	struct owner *o = arg;

	o->width = width;
	o->height = height;
}

static void server_test_input_ended(void *arg)
{
	((struct owner *)arg)->input_ended++;
}

static void server_test_closed(void *arg)
{
	struct owner *o = arg;

	o->closed++;
	o->session = NULL;
}

static const struct stream_ops ops = { server_test_open, server_test_resize,
				       server_test_input_ended, server_test_closed };

/* Until nothing happens for a moment. */
static void settle(void)
{
	int n;

	do {
		n = loop_once(g.loop, 5);
		assert_true(n >= 0);
	} while (n > 0);
}

static void server_test_wake(struct ev_timer *t)
{
}

static void pass_time(uint64_t ms)
{
	struct ev_timer wake = { 0 };

	ahead_ns += ms * NS_PER_MS;
	/* Before all others, so that the loop looks at its timers now. */
	long_ago = true;
	assert_int_equal(ev_timer_add(g.loop, &wake, 0, server_test_wake, NULL), 0);
	long_ago = false;
	settle();
}

static void new_url(bool tty)
{
	struct stream_want want = { .in = true, .out = true, .err = !tty, .tty = tty };
	struct err err = { 0 };

	free(g.url);
	assert_ok(stream_server_url(g.server, "exec", want, &ops, &g.owner, &g.url, &err), &err);
	assert_int_equal(strncmp(g.url, "http://127.0.0.1:", 17), 0);
}

static int setup(void **state)
{
	struct err err = { 0 };

	memset(&g, 0, sizeof(g));
	ahead_ns = 0;
	g.fd = -1;
	g.owner = (struct owner){ .in = -1, .out = -1, .err = -1 };
	buf_init(&g.in, 64 * MIB);
	spdy_client_init(&g.client);
	assert_ok(loop_new(&g.loop, &err), &err);
	assert_ok(stream_server_new(g.loop, "127.0.0.1", 0, 3600, &g.server, &err), &err);
	new_url(false);
	return 0;
}

static int teardown(void **state)
{
	stream_server_free(g.server);
	assert_int_equal(g.owner.closed, 1);
	loop_free(g.loop);
	fd_close(&g.fd);
	fd_close(&g.owner.in);
	fd_close(&g.owner.out);
	fd_close(&g.owner.err);
	buf_fini(&g.in);
	spdy_client_fini(&g.client);
	free(g.url);
	return 0;
}

/* ---- the client ---- */

static uint16_t port(void)
{
	uint64_t n;

	assert_int_equal(
		str_to_u64(strrchr(stream_server_address(g.server), ':') + 1, 1, 65535, &n), 0);
	return (uint16_t)n;
}

static int dial(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 64 * 1024, one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(port());
	/* Else the kernel's buffers would take all that a test sends. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(fd_set_nonblock(fd, true), 0);
	buf_clear(&g.in);
	return fd;
}

static const char *path(void)
{
	return strchr(g.url + strlen("http://"), '/');
}

static void say(const void *data, size_t n)
{
	assert_int_equal(send(g.fd, data, n, MSG_NOSIGNAL), n);
}

/* A request with these lines after the first and its Host. */
static void request(const char *method, const char *target, const char *fields)
{
	cleanup_free char *text =
		str_fmt("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, target, fields);

	if (g.fd < 0)
		g.fd = dial();
	say(text, strlen(text));
}

/* What has come, up to `most` bytes more; false at the end of the connection. */
static bool hear(size_t most)
{
	size_t was = buf_len(&g.in);
	ssize_t n = 0;

	for (int quiet = 0; quiet < 5 && buf_len(&g.in) - was < most;) {
		settle();
		n = buf_read_fd(&g.in, g.fd, MIN_OF(most - (buf_len(&g.in) - was), 64 * KIB));
		quiet = n > 0 ? 0 : quiet + 1;
		if (n == 0 || n == -ECONNRESET)
			return false;
	}
	return true;
}

/* The head of the answer is consumed; its status. */
static int status(void)
{
	const uint8_t *end;
	int code = 0;

	(void)hear(SIZE_MAX);
	end = buf_len(&g.in) ? memmem(buf_data(&g.in), buf_len(&g.in), "\r\n\r\n", 4) : NULL;
	if (!end)
		fail_msg("no answer");
	assert_int_equal(sscanf((const char *)buf_data(&g.in), "HTTP/1.1 %d ", &code), 1);
	buf_consume(&g.in, (size_t)(end + 4 - buf_data(&g.in)));
	return code;
}

#define SPDY_FIELDS "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
#define V4 "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
#define WS_FIELDS                                                                                  \
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"               \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static void flush_client(void)
{
	say(buf_data(&g.client.out), buf_len(&g.client.out));
	buf_clear(&g.client.out);
}

/* Upgraded, with streams 1 error, 3 stdin, 5 stdout, 7 stderr. */
static void start_spdy(void)
{
	static const char *const types[] = { "error", "stdin", "stdout", "stderr" };

	request("POST", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 101);
	for (uint32_t i = 0; i < 4; i++)
		spdy_client_open(&g.client, 1 + 2 * i, types[i]);
	flush_client();
	(void)hear(SIZE_MAX);
	for (uint32_t i = 0; i < 4; i++) {
		struct spdy_frame f;

		assert_true(spdy_frame_next(&g.in, &f));
		assert_true(spdy_client_reply_ok(&g.client, &f));
		assert_int_equal(f.id, 1 + 2 * i);
		buf_consume(&g.in, spdy_frame_len(&f));
	}
	assert_int_equal(g.owner.opened, 1);
}

static struct spdy_frame next_frame(void)
{
	static struct buf last;
	struct spdy_frame f;

	if (!last.max)
		buf_init(&last, 16 * MIB);
	if (!spdy_frame_next(&g.in, &f))
		fail_msg("no frame");
	buf_clear(&last);
	assert_int_equal(buf_put(&last, buf_data(&g.in), spdy_frame_len(&f)), 0);
	buf_consume(&g.in, spdy_frame_len(&f));
	assert_true(spdy_frame_next(&last, &f));
	return f;
}

static void assert_data(uint32_t id, const char *text)
{
	struct spdy_frame f = next_frame();

	assert_int_equal(f.type, 0);
	assert_int_equal(f.id, id);
	assert_int_equal(f.len, strlen(text));
	assert_memory_equal(f.payload, text, f.len);
}

static void assert_fin(uint32_t id)
{
	struct spdy_frame f = next_frame();

	assert_int_equal(f.type, 0);
	assert_int_equal(f.id, id);
	assert_int_equal(f.flags, SPDY_FIN);
}

static void assert_read(int fd, const char *text)
{
	char got[256];
	ssize_t n = read(fd, got, sizeof(got));

	assert_int_equal(n, strlen(text));
	assert_memory_equal(got, text, (size_t)n);
}

/* ---- tests ---- */

static void spdy_session(void **state)
{
	start_spdy();
	spdy_client_data(&g.client, 3, 0, "hello", 5);
	flush_client();
	settle();
	assert_read(g.owner.in, "hello");
	assert_int_equal(write(g.owner.out, "out", 3), 3);
	assert_true(hear(SIZE_MAX));
	assert_data(5, "out");
	assert_int_equal(write(g.owner.err, "err", 3), 3);
	assert_true(hear(SIZE_MAX));
	assert_data(7, "err");
	/* The end of its input is the process's, too, after the last byte. */
	spdy_client_data(&g.client, 3, SPDY_FIN, "bye", 3);
	flush_client();
	settle();
	assert_int_equal(g.owner.input_ended, 1);
	assert_read(g.owner.in, "bye");
	assert_int_equal(read(g.owner.in, &(char){ 0 }, 1), 0);
	/* The exit waits for the rest of the output. */
	assert_int_equal(write(g.owner.out, "rest", 4), 4);
	stream_exit(g.owner.session, 3);
	assert_true(hear(SIZE_MAX));
	assert_data(5, "rest");
	assert_int_equal(g.owner.closed, 0);
	fd_close(&g.owner.out);
	assert_true(hear(SIZE_MAX));
	assert_fin(5);
	assert_int_equal(g.owner.closed, 0);
	fd_close(&g.owner.err);
	assert_false(hear(SIZE_MAX));
	assert_int_equal(g.owner.closed, 1);
	assert_fin(7);
	assert_data(
		1,
		"{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with "
		"non-zero exit code: exit status 3\",\"reason\":\"NonZeroExitCode\",\"details\":"
		"{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}");
	assert_fin(3);
	assert_fin(1);
	assert_int_equal(next_frame().type, SPDY_GOAWAY);
	assert_int_equal(buf_len(&g.in), 0);
}

static void ws_frame(unsigned head, const void *payload, size_t n)
{
	uint8_t f[128] = { (uint8_t)head, (uint8_t)(0x80 | n) };

	memcpy(f + 6, payload, n); /* a mask of zeros */
	say(f, 6 + n);
}

static void assert_bytes(const void *bytes, size_t n)
{
	if (buf_len(&g.in) < n)
		fail_msg("too little has come");
	assert_memory_equal(buf_data(&g.in), bytes, n);
	buf_consume(&g.in, n);
}

static void ws_session(void **state)
{
	static const char size[] = "\4{\"Width\":100,\"Height\":50}";

	assert_int_equal(g.owner.closed, 0);
	new_url(true);
	request("GET", path(),
		WS_FIELDS "Sec-WebSocket-Protocol: v9, v5.channel.k8s.io, v4.channel.k8s.io\r\n");
	ws_frame(0x82, size, sizeof(size) - 1);
	assert_int_equal(status(), 101);
	assert_bytes("\x82\1\1", 3);
	assert_int_equal(g.owner.opened, 1);
	assert_int_equal(g.owner.width, 100);
	assert_int_equal(g.owner.height, 50);
	ws_frame(0x82, "\0hello", 6);
	settle();
	assert_read(g.owner.in, "hello");
	ws_frame(0x82, "\xff\0", 2);
	settle();
	assert_int_equal(read(g.owner.in, &(char){ 0 }, 1), 0);
	assert_int_equal(write(g.owner.out, "out", 3), 3);
	fd_close(&g.owner.out);
	fd_close(&g.owner.err);
	settle();
	stream_exit(g.owner.session, 0);
	assert_false(hear(SIZE_MAX));
	assert_bytes("\x82\4\1out", 6);
	assert_bytes("\x82\x23\3{\"metadata\":{},\"status\":\"Success\"}", 37);
	assert_bytes("\x88\2\x03\xe8", 4);
	assert_int_equal(buf_len(&g.in), 0);
	/* The first URL of the setup is left to end by itself. */
	assert_int_equal(g.owner.closed, 1);
	pass_time(TOKEN_LIFE_MS + 1);
	assert_int_equal(g.owner.closed, 2);
	g.owner.closed = 1;
}

static void failure(void **state)
{
	g.owner.fails = "no such program";
	start_spdy();
	assert_int_equal(g.owner.closed, 1);
	assert_fin(5);
	assert_fin(7);
	assert_non_null(memmem(next_frame().payload, 200, "no such program", 15));
}

static void tokens(void **state)
{
	cleanup_free char *wrong = strdup(path());

	/* Each byte counts, and so does the kind. */
	wrong[strlen(wrong) - 1] ^= 1;
	request("POST", wrong, SPDY_FIELDS V4);
	assert_int_equal(status(), 404);
	fd_close(&g.fd);
	memcpy(wrong, "/Exec", 5);
	wrong[strlen(wrong) - 1] ^= 1;
	request("POST", wrong, SPDY_FIELDS V4);
	assert_int_equal(status(), 404);
	fd_close(&g.fd);
	/* What is wrong with the request does not use it up. */
	request("POST", path(), SPDY_FIELDS);
	assert_int_equal(status(), 400);
	fd_close(&g.fd);
	request("POST", path(), SPDY_FIELDS "X-Stream-Protocol-Version: v5.channel.k8s.io\r\n");
	assert_int_equal(status(), 403);
	fd_close(&g.fd);
	request("POST", path(), WS_FIELDS);
	assert_int_equal(status(), 405);
	fd_close(&g.fd);
	request("GET", path(), WS_FIELDS "Sec-WebSocket-Protocol: chat\r\n");
	assert_int_equal(status(), 403);
	fd_close(&g.fd);
	request("PUT", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 405);
	fd_close(&g.fd);
	request("GET", path(), "");
	assert_int_equal(status(), 426);
	fd_close(&g.fd);
	request("POST", path(), "Content-Length: 3\r\n" SPDY_FIELDS V4);
	assert_int_equal(status(), 400);
	fd_close(&g.fd);
	/* It is used once. */
	request("POST", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 101);
	fd_close(&g.fd);
	settle();
	assert_int_equal(g.owner.closed, 1);
	request("POST", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 404);
}

static void garbage(void **state)
{
	static const char *const texts[] = { "\x16\x03\x01 hello", "hello\r\n\r\n",
					     "GET / HTTP/1.0\r\n\r\n" };
	static const int codes[] = { 400, 400, 505 };
	char *big = calloc(1, HTTP_HEAD_MAX + 1);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		g.fd = dial();
		say(texts[i], strlen(texts[i]));
		assert_int_equal(status(), codes[i]);
		fd_close(&g.fd);
	}
	memset(big, 'a', HTTP_HEAD_MAX);
	g.fd = dial();
	say(big, HTTP_HEAD_MAX);
	assert_int_equal(status(), 431);
	free(big);
	fd_close(&g.fd);
	/* After the upgrade. */
	start_spdy();
	say("\x80\x02\0\1\0\0\0\0", 8);
	assert_false(hear(SIZE_MAX));
	assert_int_equal(next_frame().type, SPDY_GOAWAY);
	assert_int_equal(g.owner.closed, 1);
}

/* A process that reads nothing holds back its client, not more than the limits say. */
static void slow_process(void **state)
{
	static uint8_t junk[64 * KIB];
	size_t sent = 0, got = 0;
	ssize_t n;

	start_spdy();
	spdy_client_data(&g.client, 3, 0, junk, 0);
	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)(i * 7);
	/* Frames of 4 MiB in all, as far as they go. */
	for (int i = 0; i < 64; i++)
		spdy_client_data(&g.client, 3, 0, junk, sizeof(junk));
	for (int quiet = 0; quiet < 5;) {
		n = send(g.fd, buf_data(&g.client.out), buf_len(&g.client.out), MSG_NOSIGNAL);
		quiet = n > 0 ? 0 : quiet + 1;
		if (n > 0)
			buf_consume(&g.client.out, (size_t)n);
		sent += n > 0 ? (size_t)n : 0;
		settle();
	}
	/* Kernel buffers of two sockets and a pipe, and what the session holds. */
	assert_true(sent < 3 * MIB);
	for (int quiet = 0; quiet < 5;) {
		static uint8_t back[64 * KIB];

		if (buf_len(&g.client.out)) {
			n = send(g.fd, buf_data(&g.client.out), buf_len(&g.client.out),
				 MSG_NOSIGNAL);
			if (n > 0)
				buf_consume(&g.client.out, (size_t)n);
		}
		settle();
		n = read(g.owner.in, back, sizeof(back));
		quiet = n > 0 ? 0 : quiet + 1;
		for (ssize_t i = 0; i < n; i++, got++)
			if (back[i] != junk[got % sizeof(junk)])
				fail_msg("byte %zu is wrong", got);
	}
	assert_int_equal(got, 64 * sizeof(junk));
}

/* A client that reads slowly gets all of it, long after the process has ended. */
static void slow_client(void **state)
{
	static uint8_t junk[64 * KIB];
	const size_t total = 4 * MIB;
	size_t written = 0, got = 0;
	bool exited = false;
	struct spdy_frame f;

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)(i * 13 + i / 256);
	start_spdy();
	fd_close(&g.owner.err);
	for (bool open = true; open;) {
		ssize_t n = -1;

		if (written < total)
			n = write(g.owner.out, junk + written % sizeof(junk),
				  sizeof(junk) - written % sizeof(junk));
		written += n > 0 ? (size_t)n : 0;
		if (written >= total && !exited) {
			fd_close(&g.owner.out);
			stream_exit(g.owner.session, 0);
			exited = true;
			/* Nothing is read: the session waits, longer than for a silent process. */
			pass_time(SESSION_SILENCE_MS + 1);
			pass_time(SESSION_SILENCE_MS + 1);
		}
		/* Nothing at all at first. */
		if (n > 0 && written < 2 * MIB)
			continue;
		if (!exited && written >= 2 * MIB && got == 0 && n > 0)
			fail_msg("%zu bytes were taken from the process", written);
		open = hear(256 * KIB);
		while (spdy_frame_next(&g.in, &f)) {
			if (f.type == 0 && f.id == 5) {
				for (size_t i = 0; i < f.len; i++, got++)
					if (f.payload[i] != junk[got % sizeof(junk)])
						fail_msg("byte %zu is wrong", got);
			}
			buf_consume(&g.in, spdy_frame_len(&f));
		}
	}
	assert_int_equal(got, written);
	assert_int_equal(g.owner.closed, 1);
}

/* All is in the kernel's buffers and the process has ended: the connection stays until the client
 * has it. Closed, it would be reset by the client's next word, and the rest would be lost. */
static void late_client(void **state)
{
	const size_t total = 1 * MIB;
	size_t written = 0, got = 0;
	struct spdy_frame f;

	start_spdy();
	fd_close(&g.owner.err);
	while (written < total) {
		static uint8_t junk[16 * KIB];
		ssize_t n = write(g.owner.out, junk, MIN_OF(sizeof(junk), total - written));

		written += n > 0 ? (size_t)n : 0;
		settle();
	}
	fd_close(&g.owner.out);
	stream_exit(g.owner.session, 0);
	settle();
	assert_int_equal(g.owner.closed, 1);
	pass_time(CONN_LINGER_MS + 1);
	spdy_client_data(&g.client, 3, 0, "word", 4);
	flush_client();
	for (bool open = true; open;) {
		open = hear(256 * KIB);
		while (spdy_frame_next(&g.in, &f)) {
			got += f.type == 0 && f.id == 5 ? f.len : 0;
			buf_consume(&g.in, spdy_frame_len(&f));
		}
	}
	assert_int_equal(got, total);
}

static void left_behind(void **state)
{
	/* Something keeps the output open: its silence ends the session. */
	start_spdy();
	stream_exit(g.owner.session, 0);
	settle();
	assert_int_equal(g.owner.closed, 0);
	pass_time(SESSION_SILENCE_MS - 1000);
	assert_int_equal(write(g.owner.out, "still here", 10), 10);
	settle();
	pass_time(SESSION_SILENCE_MS - 1000);
	assert_int_equal(g.owner.closed, 0);
	pass_time(2000);
	assert_int_equal(g.owner.closed, 1);
	assert_false(hear(SIZE_MAX));
}

static void vanishing(void **state)
{
	static uint8_t junk[64 * KIB];

	start_spdy();
	/* Also while the process takes nothing and so nothing is read; the client has not read all
	 * either, so its kernel says at once that it is gone. */
	assert_int_equal(write(g.owner.out, "unread", 6), 6);
	for (int i = 0; i < 64; i++)
		spdy_client_data(&g.client, 3, 0, junk, sizeof(junk));
	for (int i = 0; i < 100; i++) {
		ssize_t n =
			send(g.fd, buf_data(&g.client.out), buf_len(&g.client.out), MSG_NOSIGNAL);

		if (n > 0)
			buf_consume(&g.client.out, (size_t)n);
		settle();
	}
	assert_int_equal(g.owner.closed, 0);
	fd_close(&g.fd);
	settle();
	assert_int_equal(g.owner.closed, 1);
	/* The descriptors of the process are closed. */
	assert_int_equal(write(g.owner.out, "x", 1), -1);
	assert_int_equal(errno, EPIPE);
}

static void goodbye(void **state)
{
	start_spdy();
	spdy_client_two(&g.client, SPDY_GOAWAY, 0, 0);
	flush_client();
	assert_false(hear(SIZE_MAX));
	assert_int_equal(g.owner.closed, 1);
}

static void times(void **state)
{
	/* A head that does not come. */
	g.fd = dial();
	say("GET / HTT", 9);
	settle();
	pass_time(CONN_HEAD_MS + 1);
	assert_false(hear(SIZE_MAX));
	fd_close(&g.fd);
	/* Channels that do not come. */
	request("POST", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 101);
	spdy_client_open(&g.client, 1, "error");
	flush_client();
	settle();
	pass_time(CONN_OPEN_MS - 1000);
	assert_int_equal(g.owner.closed, 0);
	pass_time(2000);
	assert_int_equal(g.owner.closed, 1);
	assert_int_equal(g.owner.opened, 0);
	fd_close(&g.fd);
	/* A URL that nobody uses. */
	new_url(false);
	pass_time(TOKEN_LIFE_MS - 1000);
	assert_int_equal(g.owner.closed, 1);
	pass_time(2000);
	assert_int_equal(g.owner.closed, 2);
	request("POST", path(), SPDY_FIELDS V4);
	assert_int_equal(status(), 404);
	g.owner.closed = 1;
}

static void idle(void **state)
{
	start_spdy();
	pass_time(3599000);
	assert_int_equal(g.owner.closed, 0);
	assert_int_equal(write(g.owner.out, "x", 1), 1);
	settle();
	pass_time(3599000);
	assert_int_equal(g.owner.closed, 0);
	pass_time(2000);
	assert_int_equal(g.owner.closed, 1);
}

static void many(void **state)
{
	int fds[STREAM_STRANGERS_MAX + 1];
	struct err err = { 0 };
	char c;

	/* Those who say nothing: the oldest goes. */
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial();
		settle();
	}
	assert_int_equal(recv(fds[0], &c, 1, 0), 0);
	assert_int_equal(recv(fds[1], &c, 1, 0), -1);
	start_spdy();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fd_close(&fds[i]);
	/* URLs. */
	for (size_t i = 0; i < TOKENS_MAX; i++)
		new_url(false);
	assert_int_equal(stream_server_url(g.server, "exec", (struct stream_want){ .out = true },
					   &ops, &g.owner, &g.url, &err),
			 -ENOBUFS);
	stream_server_free(g.server);
	assert_int_equal(g.owner.closed, TOKENS_MAX + 1);
	g.server = NULL;
	g.owner.closed = 1;
}

static void addresses(void **state)
{
	static const char *const wrong[] = { "0.0.0.0", "::", "localhost", "", "127.0.0.1:80" };
	struct stream_server *s;
	struct err err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(stream_server_new(g.loop, wrong[i], 0, 1, &s, &err), -EINVAL);
	/* A port that is taken. */
	assert_int_equal(stream_server_new(g.loop, "127.0.0.1", port(), 1, &s, &err), -EADDRINUSE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(spdy_session), T(ws_session),	 T(failure),	 T(tokens),    T(garbage),
		T(slow_process), T(slow_client), T(late_client), T(vanishing), T(left_behind),
		T(goodbye),	 T(times),	 T(idle),	 T(many),      T(addresses),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
