#include "image/job/fetcher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/credentials.h"
#include "image/hosts.h"
#include "image/job/proc.h"
#include "image/limits.h"
#include "image/worker/worker.h"

#define READ_MAX (64 * KIB)
#define FDS_MAX 2 /* of one command */

struct fetcher {
	struct proc *proc;
	int fd;
	struct ev_io io;
	struct buf in;
	bool in_document; /* doc_len bytes of document doc_id come next */
	uint32_t doc_id;
	size_t doc_len;
	const struct fetcher_ops *ops;
	void *arg;
	bool *freed; /* set by fetcher_free while a callback runs */
};

int fetcher_open(struct procs *ps, const struct fetcher_config *config, const char *host,
		 const struct image_auth *auth, struct credentials *c,
		 const struct fetcher_ops *ops, void *arg, struct fetcher **ret, struct err *err)
{
	struct fetcher_options o = { .host = host };
	struct hosts hosts = { 0 };
	int r = credentials_set(c, auth, err);

	if (r >= 0)
		r = hosts_load(config->hosts_dir, host, &hosts, err);
	if (r < 0)
		return r;
	credentials_mark(c, host, &hosts);
	o.hosts = &hosts;
	o.retry_base_ms = config->retry_base_ms;
	o.stall_s = config->stall_s;
	o.user = c->user;
	o.password = c->password;
	o.token = c->token;
	o.identity_token = c->identity_token;
	r = fetcher_new(ps, &o, ops, arg, ret, err);
	hosts_fini(&hosts);
	return r;
}

void fetcher_free(struct fetcher *f)
{
	if (!f)
		return;
	if (f->freed)
		*f->freed = true;
	ev_io_del(&f->io);
	fd_close(&f->fd);
	proc_drop(f->proc);
	buf_fini(&f->in);
	free(f);
}

static void fail(struct fetcher *f, int code, const char *text)
{
	struct err err = { 0 };

	ev_io_del(&f->io);
	err_set(&err, code, "%s", text);
	f->ops->error(f->arg, 0, code, false, &err);
}

/* ---- events ---- */

static int on_error_event(struct fetcher *f, json_t *j, uint32_t id)
{
	json_int_t code = json_integer_value(json_object_get(j, "errno"));
	const char *text = json_string_value(json_object_get(j, "text"));
	struct err err = { 0 };

	if (code >= 0 || code < -4095 || !text)
		return -EPROTO;
	err_set(&err, (int)code, "%s", text);
	f->ops->error(f->arg, id, (int)code, json_is_true(json_object_get(j, "again")), &err);
	return 0;
}

static int on_event(struct fetcher *f, const char *line, size_t len)
{
	json_t *j = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	const char *event = json_string_value(json_object_get(j, "event"));
	uint32_t id = (uint32_t)json_integer_value(json_object_get(j, "id"));
	json_int_t fetched = json_integer_value(json_object_get(j, "fetched"));
	json_int_t length = json_integer_value(json_object_get(j, "length"));
	const char *how = json_string_value(json_object_get(j, "how"));
	int r = 0;

	if (str_eq(event, "document") && length >= 0 && length <= (json_int_t)IMAGE_MAX_DOCUMENT) {
		f->in_document = true;
		f->doc_id = id;
		f->doc_len = (size_t)length;
	} else if (str_eq(event, "progress") && fetched >= 0) {
		f->ops->progress(f->arg, id, (uint64_t)fetched);
	} else if (str_eq(event, "done") && fetched >= 0) {
		f->ops->done(f->arg, id, (uint64_t)fetched);
	} else if (str_eq(event, "pushed") && f->ops->pushed && how) {
		f->ops->pushed(f->arg, id, how);
	} else if (str_eq(event, "error")) {
		r = on_error_event(f, j, id);
	} else {
		r = -EPROTO;
	}
	json_decref(j);
	return r;
}

/* One event or document out of the buffer: 1; 0 when there is no whole one. */
static int take_one(struct fetcher *f)
{
	size_t have = buf_len(&f->in);
	const char *p = (const char *)buf_data(&f->in);
	cleanup_free char *copy = NULL;
	const char *nl;

	if (f->in_document) {
		if (have < f->doc_len)
			return 0;
		/* A copy: the callback may free the fetcher and its buffer. */
		copy = malloc(f->doc_len + 1);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, p, f->doc_len);
		buf_consume(&f->in, f->doc_len);
		f->in_document = false;
		f->ops->document(f->arg, f->doc_id, copy, f->doc_len);
		return 1;
	}
	nl = have ? memchr(p, '\n', have) : NULL;
	if (!nl)
		return have > WORKER_MAX_LINE ? -EPROTO : 0;
	copy = strndup(p, (size_t)(nl - p));
	if (!copy)
		return -ENOMEM;
	buf_consume(&f->in, (size_t)(nl - p) + 1);
	int r = on_event(f, copy, strlen(copy));
	return r < 0 ? r : 1;
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct fetcher *f = io->arg;
	bool freed = false;
	ssize_t n = buf_read_fd(&f->in, f->fd, READ_MAX);
	int r;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		fail(f, -EIO,
		     n == 0 ? "the fetching process has died" : "cannot hear the fetching process");
		return;
	}
	f->freed = &freed;
	while ((r = take_one(f)) > 0 && !freed)
		;
	if (freed)
		return;
	f->freed = NULL;
	if (r < 0)
		fail(f, r, "the fetching process talks nonsense");
}

/* ---- commands ---- */

/* With as many descriptors as there are that are not -1, at most FDS_MAX. */
static int send_command(struct fetcher *f, json_t *j, const int *fds, size_t n_fds, struct err *err)
{
	cleanup_free char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov[2];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	struct cmsghdr *c = &control.align;
	ssize_t n, len;
	size_t k = 0;

	json_decref(j);
	if (!text)
		return err_set(err, -ENOMEM, "no memory");
	iov[0] = (struct iovec){ text, strlen(text) };
	iov[1] = (struct iovec){ (char *)"\n", 1 };
	len = (ssize_t)strlen(text) + 1;
	for (size_t i = 0; i < n_fds && k < FDS_MAX; i++)
		if (fds[i] >= 0)
			memcpy(CMSG_DATA(c) + k++ * sizeof(int), &fds[i], sizeof(int));
	if (k) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(k * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(k * sizeof(int));
	}
	/* Commands are few and short: a socket that is full of them has no reader. */
	n = sendmsg(f->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n == len)
		return 0;
	return err_set(err, n < 0 && errno == EPIPE ? -EIO : -EAGAIN,
		       "the fetching process does not take commands");
}

static json_t *pack_host(const struct host *h)
{
	json_t *headers = json_array(), *j;

	for (char **v = h->headers; v && *v; v++)
		(void)!json_array_append_new(headers, json_string(*v));
	j = json_pack("{s:s, s:i, s:b, s:b, s:b, s:b, s:o, s:s*, s:s*, s:s*}", "url", h->url,
		      "capabilities", (int)h->capabilities, "skip_verify", h->skip_verify, "login",
		      h->login, "mirror", h->mirror, "ns", h->ns, "headers", headers, "ca", h->ca,
		      "cert", h->cert, "key", h->key);
	return j;
}

static const char *env(const char *upper, const char *lower)
{
	const char *v = getenv(upper);

	return str_empty(v) ? getenv(lower) : v;
}

static json_t *pack_options(const struct fetcher_options *o)
{
	json_t *hosts = json_array();

	for (size_t k = 0; k < o->hosts->n; k++)
		(void)!json_array_append_new(hosts, pack_host(&o->hosts->v[k]));
	return json_pack("{s:s, s:o, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*, s:i, s:i}", "host",
			 o->host, "hosts", hosts, "user", o->user, "password", o->password, "token",
			 o->token, "identity_token", o->identity_token, "http_proxy",
			 env("HTTP_PROXY", "http_proxy"), "https_proxy",
			 env("HTTPS_PROXY", "https_proxy"), "no_proxy", env("NO_PROXY", "no_proxy"),
			 "retry_base_ms", (int)o->retry_base_ms, "stall_s", (int)o->stall_s);
}

/* Certificates make it long, and secrets do not belong into a socket's queue: a file in memory. */
static int send_open(struct fetcher *f, const struct fetcher_options *o, struct err *err)
{
	json_t *j = pack_options(o);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	cleanup_fd int fd = memfd_create("husk-fetch", MFD_CLOEXEC);
	int r;

	json_decref(j);
	if (!text || fd < 0)
		r = err_set(err, -ENOMEM, "no memory, or credentials that are no UTF-8");
	else if (strlen(text) > WORKER_MAX_OPEN)
		r = err_set(err, -EFBIG, "more than %zu MiB of certificates",
			    WORKER_MAX_OPEN / MIB);
	else
		r = write_all(fd, text, strlen(text));
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return r < 0 ? r : send_command(f, json_pack("{s:s}", "op", "open"), &fd, 1, err);
}

int fetcher_manifest(struct fetcher *f, uint32_t id, const char *repository, const char *reference,
		     struct err *err)
{
	return send_command(f,
			    json_pack("{s:s, s:i, s:s, s:s}", "op", "manifest", "id", (int)id,
				      "repository", repository, "reference", reference),
			    NULL, 0, err);
}

int fetcher_list(struct fetcher *f, uint32_t id, int expand_fd, struct err *err)
{
	return send_command(f, json_pack("{s:s, s:i}", "op", "list", "id", (int)id), &expand_fd, 1,
			    err);
}

int fetcher_blob(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		 uint64_t size, struct err *err)
{
	return send_command(f,
			    json_pack("{s:s, s:i, s:s, s:s, s:I}", "op", "blob", "id", (int)id,
				      "repository", repository, "digest", digest, "size",
				      (json_int_t)size),
			    NULL, 0, err);
}

int fetcher_layer(struct fetcher *f, uint32_t id, const char *repository,
		  const struct fetcher_layer *l, struct err *err)
{
	const int fds[] = { l->file_fd, l->pipe_fd };

	return send_command(f,
			    json_pack("{s:s, s:i, s:s, s:s, s:I, s:I, s:b, s:b}", "op", "layer",
				      "id", (int)id, "repository", repository, "digest", l->digest,
				      "size", (json_int_t)l->size, "have", (json_int_t)l->have,
				      "file", l->file_fd >= 0, "pipe", l->pipe_fd >= 0),
			    fds, ARRAY_SIZE(fds), err);
}

int fetcher_push(struct fetcher *f, uint32_t id, const struct fetcher_push *p, struct err *err)
{
	return send_command(f,
			    json_pack("{s:s, s:i, s:s, s:s, s:I, s:b, s:s*, s:s*, s:s*}", "op",
				      "push", "id", (int)id, "repository", p->repository, "digest",
				      p->digest, "size", (json_int_t)p->size, "file", p->fd >= 0,
				      "from", p->from, "reference", p->reference, "media_type",
				      p->media_type),
			    &p->fd, 1, err);
}

int fetcher_ping(struct fetcher *f, uint32_t id, struct err *err)
{
	return send_command(f, json_pack("{s:s, s:i}", "op", "ping", "id", (int)id), NULL, 0, err);
}

/* The end of the process is seen as the end of its socket. */
static void on_exit_ignored(void *owner, int status)
{
	struct fetcher *f = owner;

	f->proc = NULL;
}

int fetcher_new(struct procs *ps, const struct fetcher_options *o, const struct fetcher_ops *ops,
		void *arg, struct fetcher **ret, struct err *err)
{
	char *const args[] = { (char *)(o->from_archive ? "archive" : "fetch"), NULL };
	struct fetcher *f = calloc(1, sizeof(*f));
	cleanup_fd int theirs = -1;
	int sv[2], fds[3], r;

	if (!f)
		return err_set(err, -ENOMEM, "no memory");
	f->fd = -1;
	f->ops = ops;
	f->arg = arg;
	buf_init(&f->in, IMAGE_MAX_DOCUMENT + WORKER_MAX_LINE + READ_MAX);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		r = err_errno(err, -errno, "socketpair");
		fetcher_free(f);
		return r;
	}
	f->fd = sv[0];
	theirs = sv[1];
	fds[0] = theirs;
	fds[1] = -1;
	fds[2] = STDERR_FILENO;
	r = proc_start(ps, args, fds, 3, on_exit_ignored, f, &f->proc, err);
	if (r >= 0 && fd_set_nonblock(f->fd, true) < 0)
		r = err_set(err, -EIO, "cannot set up a socket");
	if (r >= 0)
		r = o->from_archive ? send_command(f, json_pack("{s:s}", "op", "open"),
						   &o->archive_fd, 1, err)
				    : send_open(f, o, err);
	if (r >= 0 && ev_io_add(ps->loop, &f->io, f->fd, EPOLLIN, on_io, f) < 0)
		r = err_set(err, -ENOMEM, "no memory");
	if (r < 0) {
		fetcher_free(f);
		return r;
	}
	*ret = f;
	return 0;
}
