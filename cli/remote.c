#include "cli/remote.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>
#include <wslay/wslay.h>

#include "base/buf.h"
#include "base/util.h"
#include "cli/terminal.h"

#define CHUNK (32 * KIB)
#define QUEUE_HIGH (128 * KIB) /* for the server: our input is not read */
#define HEAD_MAX 8192
#define KEY_LEN 24
#define MESSAGE_MAX (1 * MIB)
#define CTRL_P 0x10
#define CTRL_Q 0x11

enum channel { CH_IN, CH_OUT, CH_ERR, CH_STATUS, CH_RESIZE, CH_CLOSE = 255 };

struct remote {
	const struct remote_options *o;
	int fd;
	wslay_event_context_ptr ws;
	struct buf status;
	bool in_open; /* our input is read */
	bool ctrl_p;  /* is held back, for what follows */
	bool detached, gone;
	int failed;	 /* -errno: our output cannot be written */
	size_t may_read; /* until keys and signals have their turn */
};

/* ---- texts ---- */

int remote_parse_url(const char *url, char **ret_host, char **ret_port, const char **ret_path,
		     struct err *err)
{
	static const char scheme[] = "http://";
	const char *host = url + sizeof(scheme) - 1, *end, *port, *path;
	cleanup_free char *h = NULL, *p = NULL;

	if (!str_starts(url, scheme))
		return err_set(err, -EINVAL, "%s: not a URL that streams are served at", url);
	end = host[0] == '[' ? strchr(host, ']') : strchr(host, ':');
	port = end ? strchr(end, ':') : NULL;
	path = port ? strchr(port, '/') : NULL;
	if (!path || strpbrk(url, " \r\n"))
		return err_set(err, -EINVAL, "%s: not a URL that streams are served at", url);
	host += host[0] == '[';
	h = strndup(host, (size_t)(end - host));
	p = strndup(port + 1, (size_t)(path - port - 1));
	if (!h || !p)
		return err_nomem(err);
	*ret_host = take_ptr(&h);
	*ret_port = take_ptr(&p);
	*ret_path = path;
	return 0;
}

/* The exit code among the causes, -1 = none. */
static int code_of(const json_t *status)
{
	const json_t *causes = json_object_get(json_object_get(status, "details"), "causes");
	uint64_t code;
	json_t *cause;
	size_t i;

	json_array_foreach (causes, i, cause) {
		const char *reason = json_string_value(json_object_get(cause, "reason"));
		const char *text = json_string_value(json_object_get(cause, "message"));

		if (reason && text && str_eq(reason, "ExitCode") &&
		    str_to_u64(text, 0, 255, &code) == 0)
			return (int)code;
	}
	return -1;
}

int remote_parse_status(const char *text, size_t len, int *ret_code, struct err *err)
{
	json_t *j = json_loadb(text, len, 0, NULL);
	const char *status = json_string_value(json_object_get(j, "status"));
	const char *message = json_string_value(json_object_get(j, "message"));
	const char *reason = json_string_value(json_object_get(j, "reason"));
	int code = code_of(j), r = 0;

	if (!status)
		r = err_set(err, -EPROTO, "the server said nothing of how it ended");
	else if (str_eq(status, "Success"))
		code = 0;
	else if (!reason || !str_eq(reason, "NonZeroExitCode") || code < 0)
		r = err_set(err, -EIO, "%s", message ? message : "it failed");
	if (r == 0 || (r == -EIO && code > 0))
		*ret_code = code;
	json_decref(j);
	return r;
}

/* ---- the server ---- */

static ssize_t remote_on_recv(wslay_event_context_ptr ws, uint8_t *buf, size_t len, int flags,
			      void *arg)
{
	struct remote *r = arg;
	ssize_t n;

	/* wslay asks for more until there is none. */
	if (r->failed || r->may_read == 0) {
		wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	n = recv(r->fd, buf, MIN_OF(len, r->may_read), MSG_DONTWAIT);
	if (n > 0) {
		r->may_read -= (size_t)n;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
	} else {
		r->gone = true;
		wslay_event_set_error(ws, WSLAY_ERR_CALLBACK_FAILURE);
	}
	return -1;
}

static ssize_t remote_on_send(wslay_event_context_ptr ws, const uint8_t *data, size_t len,
			      int flags, void *arg)
{
	struct remote *r = arg;
	ssize_t n = send(r->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR) {
		wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
	} else {
		/* What it has sent before can still be read. */
		r->in_open = false;
		wslay_event_set_error(ws, WSLAY_ERR_CALLBACK_FAILURE);
	}
	return -1;
}

static int remote_on_mask(wslay_event_context_ptr ws, uint8_t *buf, size_t len, void *arg)
{
	return getrandom(buf, len, 0) == (ssize_t)len ? 0 : -1;
}

static void remote_on_message(wslay_event_context_ptr ws,
			      const struct wslay_event_on_msg_recv_arg *m, void *arg)
{
	struct remote *r = arg;
	const uint8_t *data = m->msg + 1;
	size_t n = m->msg_length - 1;
	int e = 0;

	if (m->opcode != WSLAY_BINARY_FRAME || m->msg_length < 2)
		return;
	switch (m->msg[0]) {
	case CH_OUT:
		e = write_all(STDOUT_FILENO, data, n);
		break;
	case CH_ERR:
		e = write_all(STDERR_FILENO, data, n);
		break;
	case CH_STATUS:
		e = buf_put(&r->status, data, n);
		break;
	default:
		break;
	}
	if (e < 0 && !r->failed)
		r->failed = e;
}

static int queue(struct remote *r, uint8_t *message, size_t len)
{
	struct wslay_event_msg m = { WSLAY_BINARY_FRAME, message, len };

	return wslay_event_queue_msg(r->ws, &m) == 0 ? 0 : -ENOMEM;
}

static int send_size(struct remote *r)
{
	unsigned width, height;
	char text[64];
	int n;

	if (!r->o->tty || !terminal_size(STDIN_FILENO, &width, &height))
		return 0;
	n = snprintf(text, sizeof(text), "%c{\"Width\":%u,\"Height\":%u}", CH_RESIZE, width,
		     height);
	return queue(r, (uint8_t *)text, (size_t)n);
}

/* ---- our input ---- */

/* Without the detach keys: bytes in `out`, which has room for one more than n. */
static size_t filter_keys(struct remote *r, const uint8_t *p, size_t n, uint8_t *out)
{
	size_t o = 0;

	for (size_t i = 0; i < n; i++) {
		if (r->ctrl_p && p[i] == CTRL_Q) {
			r->detached = true;
			break;
		}
		if (r->ctrl_p)
			out[o++] = CTRL_P;
		r->ctrl_p = p[i] == CTRL_P;
		if (!r->ctrl_p)
			out[o++] = p[i];
	}
	return o;
}

static int take_input(struct remote *r)
{
	static uint8_t in[CHUNK], message[1 + CHUNK + 1];
	uint8_t end[2] = { CH_CLOSE, CH_IN };
	ssize_t n = read(STDIN_FILENO, in, sizeof(in));
	size_t len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		r->in_open = false;
		return queue(r, end, sizeof(end));
	}
	message[0] = CH_IN;
	if (r->o->detach_keys) {
		len = filter_keys(r, in, (size_t)n, message + 1);
	} else {
		len = (size_t)n;
		memcpy(message + 1, in, len);
	}
	return len ? queue(r, message, 1 + len) : 0;
}

/* ---- the session ---- */

/* A signal's number when it ends us, else 0. */
static int take_signal(struct remote *r, int fd, int *ret_error)
{
	struct signalfd_siginfo si;

	if (read(fd, &si, sizeof(si)) != sizeof(si))
		return 0;
	if (si.ssi_signo != SIGWINCH)
		return (int)si.ssi_signo;
	*ret_error = send_size(r);
	return 0;
}

/* Until the server has said its last. The number of a signal that ends us, 0, or -errno. */
static int remote_loop(struct remote *r, int sig_fd)
{
	int e = send_size(r), signo = 0;

	while (e == 0 && signo == 0 && !r->gone && !r->detached && !r->failed) {
		bool room = wslay_event_get_queued_msg_length(r->ws) < QUEUE_HIGH;
		struct pollfd p[3] = {
			{ .fd = r->fd, .events = POLLIN },
			{ .fd = sig_fd, .events = POLLIN },
			{ .fd = r->in_open && room ? STDIN_FILENO : -1, .events = POLLIN },
		};

		if (wslay_event_want_write(r->ws))
			p[0].events |= POLLOUT;
		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			e = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (p[1].revents)
			signo = take_signal(r, sig_fd, &e);
		if (p[2].revents && e == 0)
			e = take_input(r);
		if ((p[0].revents & POLLOUT) && wslay_event_want_write(r->ws))
			(void)wslay_event_send(r->ws);
		r->may_read = CHUNK;
		if ((p[0].revents & ~POLLOUT) && wslay_event_recv(r->ws) != 0)
			r->gone = true;
		if (wslay_event_get_close_received(r->ws))
			r->gone = true;
	}
	if (r->detached) /* what was typed before the keys for it */
		(void)wslay_event_send(r->ws);
	return e < 0 ? e : signo;
}

/* ---- the beginning ---- */

static int dial(const char *host, const char *port, int *ret, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
	struct timeval limit = { .tv_sec = REMOTE_CONNECT_MS / 1000 };
	struct addrinfo *list;
	cleanup_fd int fd = -1;
	int r = getaddrinfo(host, port, &hints, &list);

	if (r != 0)
		return err_set(err, -EINVAL, "%s: %s", host, gai_strerror(r));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(fd, list->ai_addr, list->ai_addrlen) < 0)
		r = err_errno(err, -errno, "connect to %s, port %s", host, port);
	freeaddrinfo(list);
	if (r < 0)
		return r;
	*ret = take_fd(&fd);
	return 0;
}

/* Not one byte more than the head is read. */
static int read_head(int fd, char head[HEAD_MAX], struct err *err)
{
	size_t n = 0;

	while (n < HEAD_MAX - 1) {
		ssize_t got = recv(fd, head + n, 1, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return err_set(err, -ECONNRESET, "the streaming server does not answer");
		n++;
		head[n] = '\0';
		if (str_ends(head, "\r\n\r\n"))
			return 0;
	}
	return err_set(err, -EPROTO, "the streaming server's answer is too long");
}

/* base64 of 16 random bytes, of which the last digit holds two bits. */
static int make_key(char ret[KEY_LEN + 1], struct err *err)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t random[KEY_LEN - 2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_errno(err, -errno, "random bytes");
	for (size_t i = 0; i < sizeof(random); i++)
		ret[i] = digits[random[i] & 63];
	ret[sizeof(random) - 1] = "AQgw"[random[sizeof(random) - 1] & 3];
	memcpy(ret + sizeof(random), "==", 3);
	return 0;
}

static int upgrade(int fd, const char *host, const char *path, struct err *err)
{
	cleanup_free char *request = NULL;
	char key[KEY_LEN + 1], head[HEAD_MAX] = "", *eol;
	int r = make_key(key, err);

	if (r < 0)
		return r;
	request =
		str_fmt("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
			"Sec-WebSocket-Key: %s\r\n"
			"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
			path, host, key);
	if (!request)
		return err_nomem(err);
	r = write_all(fd, request, strlen(request));
	if (r < 0)
		return err_errno(err, r, "the streaming server");
	r = read_head(fd, head, err);
	if (r < 0)
		return r;
	eol = strstr(head, "\r\n");
	*eol = '\0';
	if (!str_starts(head, "HTTP/1.1 101 "))
		return err_set(err, -EPROTO, "the streaming server answers \"%.100s\"", head);
	return 0;
}

static int open_session(struct remote *r, const char *url, struct err *err)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = remote_on_recv,
		.send_callback = remote_on_send,
		.genmask_callback = remote_on_mask,
		.on_msg_recv_callback = remote_on_message,
	};
	cleanup_free char *host = NULL, *port = NULL;
	const char *path;
	int e = remote_parse_url(url, &host, &port, &path, err);

	if (e == 0)
		e = dial(host, port, &r->fd, err);
	if (e == 0)
		e = upgrade(r->fd, host, path, err);
	if (e == 0 && wslay_event_context_client_init(&r->ws, &callbacks, r) != 0)
		e = err_nomem(err);
	if (e == 0)
		wslay_event_config_set_max_recv_msg_length(r->ws, MESSAGE_MAX);
	return e;
}

/* A blocked signal is queued, also when it is to be ignored (nohup, jobs of a script). */
static bool is_ignored(int signo)
{
	struct sigaction sa;

	return signo != SIGWINCH && sigaction(signo, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

/* Signals that would end us end the session first, so that the terminal is as it was. */
static int catch_signals(sigset_t *ret_before, struct err *err)
{
	static const int caught[] = { SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGPIPE };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++) {
		if (!is_ignored(caught[i]))
			sigaddset(&set, caught[i]);
	}
	sigprocmask(SIG_BLOCK, &set, ret_before);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? err_errno(err, -errno, "signalfd") : fd;
}

static int run_session(struct remote *r, int *ret_code, struct err *err)
{
	sigset_t before;
	cleanup_fd int sig_fd = catch_signals(&before, err);
	int e = sig_fd;

	if (e >= 0 && r->o->tty && r->o->in)
		e = terminal_raw(STDIN_FILENO, err);
	if (e >= 0) {
		e = remote_loop(r, sig_fd);
		terminal_restore();
		if (e < 0)
			(void)err_errno(err, e, "the session");
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (e < 0)
		return e;
	if (e > 0)
		*ret_code = 128 + e;
	else if (r->detached)
		*ret_code = 0;
	else if (r->failed)
		return err_errno(err, r->failed, "write what the command says");
	else
		return remote_parse_status((const char *)buf_data(&r->status), buf_len(&r->status),
					   ret_code, err);
	return 0;
}

int remote_run(const char *url, const struct remote_options *o, int *ret_code, struct err *err)
{
	struct remote r = { .o = o, .fd = -1, .in_open = o->in };
	int e;

	buf_init(&r.status, REMOTE_STATUS_MAX);
	e = open_session(&r, url, err);
	if (e == 0)
		e = run_session(&r, ret_code, err);
	if (r.ws)
		wslay_event_context_free(r.ws);
	fd_close(&r.fd);
	buf_fini(&r.status);
	return e;
}
