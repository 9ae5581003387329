/* `fetch`: commands from huskd in, documents and progress out, layers into pipes. See worker.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/image.h"
#include "image/registry.h"
#include "image/registry_push.h"
#include "image/worker.h"
#include "image/worker_confine.h"

#define MAX_PASSED_FDS (2 * REGISTRY_MAX_REQUESTS)
#define MAX_CPU_S 3600
#define CONTROL_FD 0

struct fetch {
	struct registry *reg;
	struct buf in;
	int fds[MAX_PASSED_FDS]; /* that came with commands not read yet, oldest first */
	size_t n_fds;
	bool eof, broken;
};

/* ---- events ---- */

static void send_json(struct fetch *f, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	if (!text || write_all(CONTROL_FD, text, strlen(text)) < 0 ||
	    write_all(CONTROL_FD, "\n", 1) < 0)
		f->broken = true;
	free(text);
	json_decref(j);
}

static void send_error(struct fetch *f, uint32_t id, int code, bool again, const struct err *err)
{
	const char *text = err_text(err);
	json_t *j = json_pack("{s:s, s:i, s:i, s:s, s:b}", "event", "error", "id", (int)id, "errno",
			      code, "text", text, "again", again);

	if (!j) /* not UTF-8: something that a registry said */
		j = json_pack("{s:s, s:i, s:i, s:s, s:b}", "event", "error", "id", (int)id, "errno",
			      code, "text", strerror(-code), "again", again);
	send_json(f, j);
}

static void on_done(void *arg, uint32_t id, int code, const struct registry_result *r,
		    const struct err *err)
{
	struct fetch *f = arg;
	json_t *j;

	if (code < 0) {
		send_error(f, id, code, r->again, err);
	} else if (!r->data) {
		send_json(f, json_pack("{s:s, s:i, s:I}", "event", "done", "id", (int)id, "fetched",
				       (json_int_t)r->fetched));
	} else {
		j = json_pack("{s:s, s:i, s:I, s:s}", "event", "document", "id", (int)id, "length",
			      (json_int_t)r->len, "media_type", r->media_type);
		if (!j)
			j = json_pack("{s:s, s:i, s:I, s:s}", "event", "document", "id", (int)id,
				      "length", (json_int_t)r->len, "media_type", "");
		send_json(f, j);
		if (write_all(CONTROL_FD, r->data, r->len) < 0)
			f->broken = true;
	}
}

static void on_progress(void *arg, uint32_t id, uint64_t fetched)
{
	struct fetch *f = arg;

	send_json(f, json_pack("{s:s, s:i, s:I}", "event", "progress", "id", (int)id, "fetched",
			       (json_int_t)fetched));
}

/* ---- commands ---- */

static int take_passed_fd(struct fetch *f)
{
	int fd;

	if (!f->n_fds)
		return -1;
	fd = f->fds[0];
	memmove(f->fds, f->fds + 1, --f->n_fds * sizeof(f->fds[0]));
	return fd;
}

static const char *text(const json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

/* Borrows the texts of `j`; only the list of headers is made, into `lines`. */
static int unpack_host(const json_t *j, struct host *h, char *lines[HOSTS_MAX_HEADERS + 1])
{
	json_t *headers = json_object_get(j, "headers");
	size_t n = json_array_size(headers);

	if (!text(j, "url") || !strstr(text(j, "url"), "://") || n > HOSTS_MAX_HEADERS)
		return -EPROTO;
	for (size_t k = 0; k < n; k++) {
		lines[k] = (char *)json_string_value(json_array_get(headers, k));
		if (!lines[k])
			return -EPROTO;
	}
	*h = (struct host){
		.url = (char *)text(j, "url"),
		.capabilities = (unsigned)json_integer_value(json_object_get(j, "capabilities")),
		.skip_verify = json_is_true(json_object_get(j, "skip_verify")),
		.login = json_is_true(json_object_get(j, "login")),
		.mirror = json_is_true(json_object_get(j, "mirror")),
		.ns = json_is_true(json_object_get(j, "ns")),
		.ca = (char *)text(j, "ca"),
		.cert = (char *)text(j, "cert"),
		.key = (char *)text(j, "key"),
		.headers = n ? lines : NULL,
	};
	return 0;
}

static int open_registry(struct fetch *f, const json_t *j, struct err *err)
{
	static char *lines[HOSTS_MAX][HOSTS_MAX_HEADERS + 1];
	json_t *list = json_object_get(j, "hosts");
	struct hosts hosts = { .n = json_array_size(list) };
	struct registry_options o = {
		.host = text(j, "host"),
		.hosts = &hosts,
		.user = text(j, "user"),
		.password = text(j, "password"),
		.token = text(j, "token"),
		.identity_token = text(j, "identity_token"),
		.http_proxy = text(j, "http_proxy"),
		.https_proxy = text(j, "https_proxy"),
		.no_proxy = text(j, "no_proxy"),
		.retry_base_ms = (unsigned)json_integer_value(json_object_get(j, "retry_base_ms")),
		.stall_s = (unsigned)json_integer_value(json_object_get(j, "stall_s")),
	};

	if (!o.host || !hosts.n || hosts.n > HOSTS_MAX)
		return err_set(err, -EPROTO, "bad command: open");
	for (size_t k = 0; k < hosts.n; k++)
		if (unpack_host(json_array_get(list, k), &hosts.v[k], lines[k]) < 0)
			return err_set(err, -EPROTO, "bad command: open");
	return registry_new(&o, on_done, on_progress, f, &f->reg, err);
}

static int op_open(struct fetch *f, struct err *err)
{
	cleanup_fd int fd = take_passed_fd(f);
	char *data = NULL;
	size_t len = 0;
	json_t *j;
	int r;

	if (fd < 0 || f->reg)
		return err_set(err, -EPROTO, "bad command: open");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(err, -errno, "read the command: open");
	r = read_fd(fd, WORKER_MAX_OPEN, &data, &len);
	if (r < 0)
		return err_errno(err, r, "read the command: open");
	j = json_loadb(data, len, 0, NULL);
	explicit_bzero(data, len);
	free(data);
	r = open_registry(f, j, err);
	json_decref(j);
	return r;
}

static int take_layer_fds(struct fetch *f, const json_t *j, struct registry_request *q,
			  struct err *err)
{
	bool file = json_is_true(json_object_get(j, "file"));
	bool pipe = json_is_true(json_object_get(j, "pipe"));

	if (f->n_fds < (size_t)file + pipe)
		return err_set(err, -EPROTO, "layer without its descriptors");
	q->file_fd = file ? take_passed_fd(f) : -1;
	q->pipe_fd = pipe ? take_passed_fd(f) : -1;
	return 0;
}

static int op_get(struct fetch *f, const json_t *j, enum registry_op op, struct err *err)
{
	struct registry_request q = {
		.op = op,
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.repository = text(j, "repository"),
		.reference = text(j, "reference"),
		.digest = text(j, "digest"),
		.size = (uint64_t)json_integer_value(json_object_get(j, "size")),
		.have = (uint64_t)json_integer_value(json_object_get(j, "have")),
		.max = IMAGE_MAX_DOCUMENT,
		.file_fd = -1,
		.pipe_fd = -1,
		.body_fd = -1,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg || !q.repository || !(op == REGISTRY_MANIFEST ? q.reference : q.digest))
		return err_set(err, -EPROTO, "bad command");
	r = op == REGISTRY_LAYER ? take_layer_fds(f, j, &q, err) : 0;
	if (r < 0)
		return r;
	r = registry_start(f->reg, &q, &why);
	if (r < 0)
		send_error(f, q.id, r, false, &why);
	return 0;
}

/* ---- pushing (registry_push.h), and whether credentials are right ---- */

static void on_pushed(void *arg, uint32_t id, int code, enum push_how how, const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		send_error(f, id, code, false, err);
	else
		send_json(f, json_pack("{s:s, s:i, s:s}", "event", "pushed", "id", (int)id, "how",
				       push_how_name(how)));
}

static int op_push(struct fetch *f, const json_t *j, struct err *err)
{
	struct push_request q = {
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.repository = text(j, "repository"),
		.digest = text(j, "digest"),
		.size = (uint64_t)json_integer_value(json_object_get(j, "size")),
		.from = text(j, "from"),
		.reference = text(j, "reference"),
		.media_type = text(j, "media_type"),
		.fd = -1,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg || !q.repository || !digest_valid(q.digest))
		return err_set(err, -EPROTO, "bad command: push");
	if (json_is_true(json_object_get(j, "file"))) {
		q.fd = take_passed_fd(f);
		if (q.fd < 0)
			return err_set(err, -EPROTO, "push without its descriptor");
	}
	r = push_start(f->reg, &q, on_pushed, f, &why);
	if (r < 0)
		send_error(f, q.id, r, false, &why);
	return 0;
}

static void on_ping(void *arg, uint32_t id, int code, const struct registry_result *res,
		    const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		send_error(f, id, code, false, err);
	else
		send_json(f, json_pack("{s:s, s:i, s:i}", "event", "done", "id", (int)id, "fetched",
				       0));
}

static int op_ping(struct fetch *f, const json_t *j, struct err *err)
{
	struct registry_request q = {
		.op = REGISTRY_CALL,
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.method = "GET",
		.path = "",
		.max = 64 * KIB,
		.file_fd = -1,
		.pipe_fd = -1,
		.body_fd = -1,
		.done = on_ping,
		.arg = f,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg)
		return err_set(err, -EPROTO, "bad command: ping");
	r = registry_start(f->reg, &q, &why);
	if (r < 0)
		send_error(f, q.id, r, false, &why);
	return 0;
}

static int command(struct fetch *f, const char *line, size_t len, struct err *err)
{
	json_t *j = json_loadb(line, len, 0, NULL);
	const char *op = text(j, "op");
	int r;

	if (str_eq(op, "open"))
		r = op_open(f, err);
	else if (str_eq(op, "manifest"))
		r = op_get(f, j, REGISTRY_MANIFEST, err);
	else if (str_eq(op, "blob"))
		r = op_get(f, j, REGISTRY_BLOB, err);
	else if (str_eq(op, "layer"))
		r = op_get(f, j, REGISTRY_LAYER, err);
	else if (str_eq(op, "push"))
		r = op_push(f, j, err);
	else if (str_eq(op, "ping"))
		r = op_ping(f, j, err);
	else
		r = err_set(err, -EPROTO, "unknown command");
	json_decref(j);
	return r;
}

/* One recvmsg: bytes to the buffer, descriptors to the queue. */
static int receive(struct fetch *f, struct err *err)
{
	union {
		char space[CMSG_SPACE(MAX_PASSED_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	uint8_t *p;
	struct iovec iov = { .iov_len = 16 * KIB };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	if (buf_reserve(&f->in, iov.iov_len, &p) < 0)
		return err_set(err, -EPROTO, "command too long");
	iov.iov_base = p;
	n = recvmsg(CONTROL_FD, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : err_errno(err, -errno, "receive");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		if (f->n_fds + k > MAX_PASSED_FDS)
			return err_set(err, -EPROTO, "too many descriptors");
		memcpy(f->fds + f->n_fds, CMSG_DATA(c), k * sizeof(int));
		f->n_fds += k;
	}
	f->eof = n == 0;
	buf_commit(&f->in, (size_t)n);
	return 0;
}

static int commands(struct fetch *f, struct err *err)
{
	int r = receive(f, err);

	while (r >= 0) {
		const char *line = (const char *)buf_data(&f->in);
		size_t have = buf_len(&f->in);
		const char *nl = have ? memchr(line, '\n', have) : NULL;

		if (!nl)
			break;
		r = command(f, line, (size_t)(nl - line), err);
		buf_consume(&f->in, (size_t)(nl - line) + 1);
	}
	return r;
}

static int wait_control(struct fetch *f, struct err *err)
{
	bool ready = false;
	int r;

	/* Before `open` there is nothing else to wait for: a blocking look at the socket. */
	if (!f->reg) {
		char c;
		ssize_t n = recv(CONTROL_FD, &c, 1, MSG_PEEK);

		if (n < 0 && errno != EINTR)
			return err_errno(err, -errno, "receive");
		return commands(f, err);
	}
	r = registry_poll(f->reg, CONTROL_FD, &ready, 1000, err);
	return r < 0 || !ready ? r : commands(f, err);
}

int worker_fetch(void)
{
	const struct confine_limits limits = { 1 * GIB, IMAGE_MAX_LAYER, MAX_CPU_S };
	static struct fetch f;
	struct err err = { 0 };
	int r = confine_common(&limits, &err);

	buf_init(&f.in, WORKER_MAX_LINE + 16 * KIB);
	if (r >= 0)
		r = confine_fetch(&err);
	while (r >= 0 && !f.eof && !f.broken)
		r = wait_control(&f, &err);
	if (r < 0)
		send_error(&f, 0, r, false, &err);
	registry_free(f.reg);
	buf_fini(&f.in);
	return r < 0;
}
