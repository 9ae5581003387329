/* `fetch`: commands from huskd in, documents and progress out, layers into pipes. See worker.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/util.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/registry/registry.h"
#include "image/registry/push.h"
#include "image/worker/worker.h"
#include "image/worker/channel.h"
#include "image/worker/confine.h"

#define MAX_CPU_S 3600

struct fetch {
	struct registry *reg;
	struct channel ch;
};

/* ---- events ---- */

static void on_done(void *arg, uint32_t id, int code, const struct registry_result *r,
		    const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0) {
		channel_send_error(&f->ch, id, code, r->again, err);
	} else if (!r->data) {
		channel_send(&f->ch, json_pack("{s:s, s:i, s:I}", "event", "done", "id", (int)id,
					       "fetched", (json_int_t)r->fetched));
	} else {
		channel_send_document(&f->ch, id, r->data, r->len, r->media_type);
	}
}

static void on_progress(void *arg, uint32_t id, uint64_t fetched)
{
	struct fetch *f = arg;

	channel_send(&f->ch, json_pack("{s:s, s:i, s:I}", "event", "progress", "id", (int)id,
				       "fetched", (json_int_t)fetched));
}

/* ---- commands ---- */

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
	cleanup_fd int fd = channel_take_fd(&f->ch);
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

static int take_layer_fds(struct fetch *f, const json_t *j, struct registry_layer *q,
			  struct err *err)
{
	bool file = json_is_true(json_object_get(j, "file"));
	bool pipe = json_is_true(json_object_get(j, "pipe"));

	if (f->ch.n_fds < (size_t)file + pipe)
		return err_set(err, -EPROTO, "layer without its descriptors");
	q->file_fd = file ? channel_take_fd(&f->ch) : -1;
	q->pipe_fd = pipe ? channel_take_fd(&f->ch) : -1;
	return 0;
}

static int op_document(struct fetch *f, const json_t *j, bool manifest, struct err *err)
{
	struct registry_document q = {
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.repository = text(j, "repository"),
		.reference = text(j, manifest ? "reference" : "digest"),
		.max = IMAGE_MAX_DOCUMENT,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg || !q.repository || !q.reference)
		return err_set(err, -EPROTO, "bad command");
	r = manifest ? registry_manifest(f->reg, &q, &why) : registry_blob(f->reg, &q, &why);
	if (r < 0)
		channel_send_error(&f->ch, q.id, r, false, &why);
	return 0;
}

static int op_layer(struct fetch *f, const json_t *j, struct err *err)
{
	struct registry_layer q = {
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.repository = text(j, "repository"),
		.digest = text(j, "digest"),
		.size = (uint64_t)json_integer_value(json_object_get(j, "size")),
		.have = (uint64_t)json_integer_value(json_object_get(j, "have")),
		.file_fd = -1,
		.pipe_fd = -1,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg || !q.repository || !q.digest)
		return err_set(err, -EPROTO, "bad command");
	r = take_layer_fds(f, j, &q, err);
	if (r < 0)
		return r;
	r = registry_layer(f->reg, &q, &why);
	if (r < 0)
		channel_send_error(&f->ch, q.id, r, false, &why);
	return 0;
}

/* ---- pushing (registry/push.h), and whether credentials are right ---- */

static void on_pushed(void *arg, uint32_t id, int code, enum push_how how, const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		channel_send_error(&f->ch, id, code, false, err);
	else
		channel_send(&f->ch, json_pack("{s:s, s:i, s:s}", "event", "pushed", "id", (int)id,
					       "how", push_how_name(how)));
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
		q.fd = channel_take_fd(&f->ch);
		if (q.fd < 0)
			return err_set(err, -EPROTO, "push without its descriptor");
	}
	r = push_start(f->reg, &q, on_pushed, f, &why);
	if (r < 0)
		channel_send_error(&f->ch, q.id, r, false, &why);
	return 0;
}

static void on_ping(void *arg, uint32_t id, int code, const struct registry_result *res,
		    const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		channel_send_error(&f->ch, id, code, false, err);
	else
		channel_send(&f->ch, json_pack("{s:s, s:i, s:i}", "event", "done", "id", (int)id,
					       "fetched", 0));
}

static int op_ping(struct fetch *f, const json_t *j, struct err *err)
{
	struct registry_call q = {
		.id = (uint32_t)json_integer_value(json_object_get(j, "id")),
		.method = "GET",
		.path = "",
		.max = 64 * KIB,
		.body_fd = -1,
		.done = on_ping,
		.arg = f,
	};
	struct err why = { 0 };
	int r;

	if (!f->reg)
		return err_set(err, -EPROTO, "bad command: ping");
	r = registry_call(f->reg, &q, &why);
	if (r < 0)
		channel_send_error(&f->ch, q.id, r, false, &why);
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
		r = op_document(f, j, true, err);
	else if (str_eq(op, "blob"))
		r = op_document(f, j, false, err);
	else if (str_eq(op, "layer"))
		r = op_layer(f, j, err);
	else if (str_eq(op, "push"))
		r = op_push(f, j, err);
	else if (str_eq(op, "ping"))
		r = op_ping(f, j, err);
	else
		r = err_set(err, -EPROTO, "unknown command");
	json_decref(j);
	return r;
}

static int commands(struct fetch *f, bool wait, struct err *err)
{
	int r = channel_receive(&f->ch, wait, err);

	while (r >= 0) {
		cleanup_free char *line = NULL;

		r = channel_line(&f->ch, &line, err);
		if (r < 0 || !line)
			break;
		r = command(f, line, strlen(line), err);
	}
	return r;
}

static int wait_control(struct fetch *f, struct err *err)
{
	bool ready = false;
	int r;

	/* Before `open` there is nothing else to wait for. */
	if (!f->reg)
		return commands(f, true, err);
	r = registry_poll(f->reg, CHANNEL_FD, &ready, 1000, err);
	return r < 0 || !ready ? r : commands(f, false, err);
}

int worker_fetch(void)
{
	const struct confine_limits limits = { 1 * GIB, IMAGE_MAX_LAYER, MAX_CPU_S };
	static struct fetch f;
	struct err err = { 0 };
	int r = confine_common(&limits, &err);

	channel_init(&f.ch);
	if (r >= 0)
		r = confine_fetch(&err);
	while (r >= 0 && !f.ch.eof && !f.ch.broken)
		r = wait_control(&f, &err);
	if (r < 0)
		channel_send_error(&f.ch, 0, r, false, &err);
	registry_free(f.reg);
	channel_fini(&f.ch);
	return r < 0;
}
