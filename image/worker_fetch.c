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
#include "image/worker.h"
#include "image/worker_confine.h"

#define MAX_PASSED_FDS REGISTRY_MAX_REQUESTS
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

static void send_error(struct fetch *f, uint32_t id, int code, const struct err *err)
{
	const char *text = err_text(err);
	json_t *j = json_pack("{s:s, s:i, s:i, s:s}", "event", "error", "id", (int)id, "errno",
			      code, "text", text);

	if (!j) /* not UTF-8: something that a registry said */
		j = json_pack("{s:s, s:i, s:i, s:s}", "event", "error", "id", (int)id, "errno",
			      code, "text", strerror(-code));
	send_json(f, j);
}

static void on_done(void *arg, uint32_t id, int code, const struct registry_result *r,
		    const struct err *err)
{
	struct fetch *f = arg;
	json_t *j;

	if (code < 0) {
		send_error(f, id, code, err);
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

static int op_open(struct fetch *f, json_t *j, struct err *err)
{
	struct registry_options o = {
		.host = json_string_value(json_object_get(j, "host")),
		.user = json_string_value(json_object_get(j, "user")),
		.password = json_string_value(json_object_get(j, "password")),
		.token = json_string_value(json_object_get(j, "token")),
	};

	if (!o.host || f->reg)
		return err_set(err, -EPROTO, "bad command: open");
	return registry_new(&o, on_done, on_progress, f, &f->reg, err);
}

static int take_passed_fd(struct fetch *f)
{
	int fd = f->fds[0];

	memmove(f->fds, f->fds + 1, --f->n_fds * sizeof(f->fds[0]));
	return fd;
}

static int op_get(struct fetch *f, json_t *j, const char *op, struct err *err)
{
	struct registry_request q = {
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.repository = json_string_value(json_object_get(j, "repository")),
		.reference = json_string_value(json_object_get(j, "reference")),
		.digest = json_string_value(json_object_get(j, "digest")),
		.size = (uint64_t)json_integer_value(json_object_get(j, "size")),
		.max = IMAGE_MAX_DOCUMENT,
		.out_fd = -1,
	};
	struct err fail = { 0 };
	bool manifest = str_eq(op, "manifest");
	int r;

	if (!f->reg || !q.repository || !(manifest ? q.reference : q.digest))
		return err_set(err, -EPROTO, "bad command: %s", op);
	if (!manifest)
		q.reference = NULL;
	if (str_eq(op, "layer")) {
		if (!f->n_fds)
			return err_set(err, -EPROTO, "layer without a descriptor");
		q.out_fd = take_passed_fd(f);
	}
	r = registry_start(f->reg, &q, &fail);
	if (r < 0)
		send_error(f, q.id, r, &fail);
	return 0;
}

static int command(struct fetch *f, const char *line, size_t len, struct err *err)
{
	json_t *j = json_loadb(line, len, 0, NULL);
	const char *op = json_string_value(json_object_get(j, "op"));
	int r;

	if (str_eq(op, "open"))
		r = op_open(f, j, err);
	else if (str_eq(op, "manifest") || str_eq(op, "blob") || str_eq(op, "layer"))
		r = op_get(f, j, op, err);
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
	const struct confine_limits limits = { 1 * GIB, 0, MAX_CPU_S };
	static struct fetch f;
	struct err err = { 0 };
	int r = confine_common(&limits, &err);

	buf_init(&f.in, WORKER_MAX_LINE + 16 * KIB);
	if (r >= 0)
		r = confine_fetch(&err);
	while (r >= 0 && !f.eof && !f.broken)
		r = wait_control(&f, &err);
	if (r < 0)
		send_error(&f, 0, r, &err);
	registry_free(f.reg);
	buf_fini(&f.in);
	return r < 0;
}
