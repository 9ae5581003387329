#include "image/job/fetcher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/fdpass.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/util.h"
#include "image/credentials.h"
#include "image/hosts.h"
#include "image/job/proc.h"
#include "image/wire.h"

#define READ_MAX (64 * KIB)

/* One that is under way. */
struct call {
	uint32_t id;			   /* 0 = this place is free */
	Worker__Event__EventCase expected; /* how it ends, if it does not fail */
};

struct fetcher {
	struct proc *proc;
	const char *mode;
	int fd;
	struct ev_io io; /* deleted when nothing more comes */
	struct buf in;
	struct call calls[WIRE_MAX_REQUESTS];
	const struct fetcher_ops *ops;
	void *arg;
	bool *freed; /* set by fetcher_free while a callback runs */
};

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

static struct call *find_call(struct fetcher *f, uint32_t id)
{
	for (size_t k = 0; k < ARRAY_SIZE(f->calls); k++)
		if (f->calls[k].id == id)
			return &f->calls[k];
	return NULL;
}

/* ---- events ---- */

/* The process is of no more use. */
static void fail(struct fetcher *f, const struct err *why)
{
	struct err err = *why;

	ev_io_del(&f->io);
	f->ops->error(f->arg, 0, err.code, false, &err);
}

static enum fetcher_pushed pushed_how(Worker__Pushed__How how)
{
	return how == WORKER__PUSHED__HOW__PRESENT   ? FETCHER_PRESENT
	       : how == WORKER__PUSHED__HOW__MOUNTED ? FETCHER_MOUNTED
						     : FETCHER_SENT;
}

/* The end of a request. `f` may be gone afterwards. */
static void answer(struct fetcher *f, const Worker__Event *e)
{
	struct err err = { 0 };
	int code;

	switch (e->event_case) {
	case WORKER__EVENT__EVENT_DOCUMENT:
		f->ops->document(f->arg, e->id, e->document->data.data, e->document->data.len);
		break;
	case WORKER__EVENT__EVENT_IMAGES:
		f->ops->images(f->arg, e->id, e->images);
		break;
	case WORKER__EVENT__EVENT_DONE:
		f->ops->done(f->arg, e->id, e->done->bytes);
		break;
	case WORKER__EVENT__EVENT_PUSHED:
		f->ops->pushed(f->arg, e->id, pushed_how(e->pushed->how));
		break;
	default:
		code = wire_failure(e->failure, &err);
		f->ops->error(f->arg, e->id, code, e->failure->again, &err);
	}
}

/* -EPROTO: it fits no request under way. Otherwise `f` may be gone afterwards. */
static int dispatch(struct fetcher *f, const Worker__Event *e, struct err *err)
{
	bool failed = e->event_case == WORKER__EVENT__EVENT_FAILURE;
	struct call *c = e->id ? find_call(f, e->id) : NULL;

	if (!e->id) { /* only a failure can be without */
		struct err why = { 0 };

		wire_failure(e->failure, &why);
		fail(f, &why);
		return 0;
	}
	if (!c)
		return err_set(err, -EPROTO, "an answer to a request that is not under way");
	if (e->event_case == WORKER__EVENT__EVENT_PROGRESS) {
		if (f->ops->progress)
			f->ops->progress(f->arg, e->id, e->progress->bytes);
		return 0;
	}
	if (!failed && e->event_case != c->expected)
		return err_set(err, -EPROTO, "an answer to another kind of request");
	c->id = 0;
	answer(f, e);
	return 0;
}

/* The next event of the buffer: 1; 0: there is no whole one; < 0. */
static int take_event(struct fetcher *f, struct err *err)
{
	cleanup_pb_arena struct pb_arena arena;
	const Worker__Event *e;
	const uint8_t *data;
	ssize_t n = wire_next(&f->in, WIRE_MAX_EVENT, &data);
	int r;

	pb_arena_init(&arena, WIRE_EVENT_MEMORY);
	if (n < 0)
		return err_set(err, (int)n, "a message of no bytes, or of more than %zu",
			       WIRE_MAX_EVENT);
	if (n == 0)
		return 0;
	r = wire_event(&arena, data, (size_t)n, &e, err);
	if (r < 0)
		return r;
	/* The event is in the arena: the callback may free the fetcher and its buffer. */
	buf_consume(&f->in, WIRE_HEADER + (size_t)n);
	r = dispatch(f, e, err);
	return r < 0 ? r : 1;
}

static void fetcher_on_io(struct ev_io *io, uint32_t events)
{
	struct fetcher *f = io->arg;
	struct err err = { 0 };
	bool freed = false;
	ssize_t n = buf_read_fd(&f->in, f->fd, READ_MAX);
	int r;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		if (n == 0)
			proc_err_died(f->mode, -EIO, &err);
		else
			proc_err_lost(f->mode, (int)n, -EIO, &err);
		fail(f, &err);
		return;
	}
	f->freed = &freed;
	do
		r = take_event(f, &err);
	while (r > 0 && !freed && f->io.loop);
	if (freed)
		return;
	f->freed = NULL;
	if (r == -EPROTO)
		proc_err_protocol(f->mode, &err);
	if (r < 0)
		fail(f, &err);
}

/* ---- commands ---- */

/* With those of the descriptors that are not -1. */
static int send_command(struct fetcher *f, const Worker__Command *c, const int *fds, size_t n_fds,
			struct err *err)
{
	cleanup_free uint8_t *frame = NULL;
	size_t len = 0;
	int r = wire_frame(&c->base, WIRE_MAX_COMMAND, &frame, &len);
	ssize_t n;

	if (r == -ENOMEM)
		return err_nomem(err);
	if (r < 0)
		return err_set(err, r, "a command of more than %zu KiB", WIRE_MAX_COMMAND / KIB);
	/* Commands are few and short: the socket is full only when the process does not read. */
	n = fdpass_send(f->fd, frame, len, fds, n_fds, MSG_DONTWAIT);
	if (n == (ssize_t)len)
		return 0;
	return err_set(err, n == -EPIPE ? -EIO : -EAGAIN,
		       "husk-image-worker %s does not take commands: %s", f->mode,
		       n < 0 ? strerror((int)-n) : "its socket is full");
}

static int send_request(struct fetcher *f, Worker__Command *c, uint32_t id,
			Worker__Event__EventCase expected, const int *fds, size_t n_fds,
			struct err *err)
{
	struct call *place = find_call(f, 0);
	int r;

	check(id && !find_call(f, id));
	if (!place)
		return err_set(err, -EBUSY, "more than %u requests at once", WIRE_MAX_REQUESTS);
	c->id = id;
	r = send_command(f, c, fds, n_fds, err);
	if (r == 0)
		*place = (struct call){ .id = id, .expected = expected };
	return r;
}

int fetcher_manifest(struct fetcher *f, uint32_t id, const char *repository, const char *reference,
		     struct err *err)
{
	Worker__Manifest m = WORKER__MANIFEST__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	m.repository = (char *)repository;
	m.reference = (char *)reference;
	c.command_case = WORKER__COMMAND__COMMAND_MANIFEST;
	c.manifest = &m;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_DOCUMENT, NULL, 0, err);
}

int fetcher_blob(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		 uint64_t size, struct err *err)
{
	Worker__Blob b = WORKER__BLOB__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	b.repository = (char *)repository;
	b.digest = (char *)digest;
	b.size = size;
	c.command_case = WORKER__COMMAND__COMMAND_BLOB;
	c.blob = &b;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_DOCUMENT, NULL, 0, err);
}

int fetcher_list(struct fetcher *f, uint32_t id, int expand_fd, struct err *err)
{
	Worker__List l = WORKER__LIST__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	c.command_case = WORKER__COMMAND__COMMAND_LIST;
	c.list = &l;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_IMAGES, &expand_fd, 1, err);
}

int fetcher_ping(struct fetcher *f, uint32_t id, struct err *err)
{
	Worker__Ping p = WORKER__PING__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	c.command_case = WORKER__COMMAND__COMMAND_PING;
	c.ping = &p;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_DONE, NULL, 0, err);
}

int fetcher_layer(struct fetcher *f, uint32_t id, const char *repository,
		  const struct fetcher_layer *l, struct err *err)
{
	const int fds[] = { l->file_fd, l->pipe_fd };
	Worker__Layer m = WORKER__LAYER__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	m.repository = (char *)repository;
	m.digest = (char *)l->digest;
	m.size = l->size;
	m.have = l->have;
	m.file = l->file_fd >= 0;
	m.pipe = l->pipe_fd >= 0;
	c.command_case = WORKER__COMMAND__COMMAND_LAYER;
	c.layer = &m;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_DONE, fds, ARRAY_SIZE(fds), err);
}

static char *or_empty(const char *s)
{
	return (char *)(s ? s : "");
}

int fetcher_push(struct fetcher *f, uint32_t id, const struct fetcher_push *p, struct err *err)
{
	Worker__Push m = WORKER__PUSH__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	m.repository = (char *)p->repository;
	m.digest = (char *)p->digest;
	m.size = p->size;
	m.file = p->fd >= 0;
	m.from = or_empty(p->from);
	m.reference = or_empty(p->reference);
	m.media_type = or_empty(p->media_type);
	c.command_case = WORKER__COMMAND__COMMAND_PUSH;
	c.push = &m;
	return send_request(f, &c, id, WORKER__EVENT__EVENT_PUSHED, &p->fd, 1, err);
}

/* ---- the beginning ---- */

static ProtobufCBinaryData bytes_of(const char *s)
{
	return (ProtobufCBinaryData){ .data = (uint8_t *)s, .len = s ? strlen(s) : 0 };
}

/* The environment's. */
static ProtobufCBinaryData proxy(const char *upper, const char *lower)
{
	const char *v = getenv(upper);

	return bytes_of(str_empty(v) ? getenv(lower) : v);
}

static void fill_host(Worker__Options__Host *to, const struct host *h, ProtobufCBinaryData *headers)
{
	worker__options__host__init(to);
	to->url = h->url;
	to->capabilities = h->capabilities;
	to->mirror = h->mirror;
	to->ns = h->ns;
	to->login = h->login;
	to->skip_verify = h->skip_verify;
	to->headers = headers;
	for (char **v = h->headers; v && *v; v++) {
		check(to->n_headers < HOSTS_MAX_HEADERS);
		headers[to->n_headers++] = bytes_of(*v);
	}
	to->ca = bytes_of(h->ca);
	to->cert = bytes_of(h->cert);
	to->key = bytes_of(h->key);
}

/* *ret_len packed bytes on the heap, with the secrets in them. */
static int pack_options(const struct fetcher_options *o, uint8_t **ret, size_t *ret_len,
			struct err *err)
{
	ProtobufCBinaryData headers[HOSTS_MAX][HOSTS_MAX_HEADERS];
	Worker__Options__Host hosts[HOSTS_MAX], *pointers[HOSTS_MAX];
	Worker__Options m = WORKER__OPTIONS__INIT;

	for (size_t k = 0; k < o->hosts->n; k++) {
		fill_host(&hosts[k], &o->hosts->v[k], headers[k]);
		pointers[k] = &hosts[k];
	}
	m.host = (char *)o->host;
	m.hosts = pointers;
	m.n_hosts = o->hosts->n;
	m.user = bytes_of(o->user);
	m.password = bytes_of(o->password);
	m.token = bytes_of(o->token);
	m.identity_token = bytes_of(o->identity_token);
	m.http_proxy = proxy("HTTP_PROXY", "http_proxy");
	m.https_proxy = proxy("HTTPS_PROXY", "https_proxy");
	m.no_proxy = proxy("NO_PROXY", "no_proxy");
	m.retry_base_ms = o->retry_base_ms;
	m.stall_s = o->stall_s;
	if (worker__options__get_packed_size(&m) > WIRE_MAX_OPTIONS)
		return err_set(err, -EFBIG, "more than %zu MiB of certificates",
			       WIRE_MAX_OPTIONS / MIB);
	*ret = pb_pack(&m.base, ret_len);
	return *ret ? 0 : err_nomem(err);
}

static int send_open(struct fetcher *f, int fd, struct err *err)
{
	Worker__Open open = WORKER__OPEN__INIT;
	Worker__Command c = WORKER__COMMAND__INIT;

	c.command_case = WORKER__COMMAND__COMMAND_OPEN;
	c.open = &open;
	return send_command(f, &c, &fd, 1, err);
}

/*
 * Certificates make them long, and secrets do not belong into a socket's queue: a file in memory.
 */
static int send_options(struct fetcher *f, const struct fetcher_options *o, struct err *err)
{
	cleanup_fd int fd = memfd_create("husk-fetch", MFD_CLOEXEC);
	cleanup_free uint8_t *bytes = NULL;
	size_t len = 0;
	int r = fd < 0 ? err_errno(err, -errno, "memfd_create")
		       : pack_options(o, &bytes, &len, err);

	if (r < 0)
		return r;
	r = write_all(fd, bytes, len);
	explicit_bzero(bytes, len);
	return r < 0 ? err_errno(err, r, "write the fetch process's options")
		     : send_open(f, fd, err);
}

/* The end of the process is seen as the end of its socket. */
static void fetcher_on_exit(void *owner, int status)
{
	struct fetcher *f = owner;

	f->proc = NULL;
}

static int start(struct procs *ps, struct fetcher *f, struct err *err)
{
	char *const args[] = { (char *)f->mode, NULL };
	cleanup_fd int theirs = -1;
	int sv[2], fds[3];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, -errno, "socketpair");
	f->fd = sv[0];
	theirs = sv[1];
	if (fd_set_nonblock(f->fd, true) < 0)
		return err_errno(err, -errno, "set up a socket");
	fds[0] = theirs;
	fds[1] = -1;
	fds[2] = -1; /* proc.c */
	return proc_start(ps, args, fds, 3, fetcher_on_exit, f, &f->proc, err);
}

int fetcher_new(struct procs *ps, const struct fetcher_options *o, const struct fetcher_ops *ops,
		void *arg, struct fetcher **ret, struct err *err)
{
	struct fetcher *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_nomem(err);
	f->fd = -1;
	f->mode = o->from_archive ? "archive" : "fetch";
	f->ops = ops;
	f->arg = arg;
	buf_init(&f->in, WIRE_HEADER + WIRE_MAX_EVENT + READ_MAX);
	r = start(ps, f, err);
	if (r == 0)
		r = o->from_archive ? send_open(f, o->archive_fd, err) : send_options(f, o, err);
	if (r == 0 && ev_io_add(ps->loop, &f->io, f->fd, EPOLLIN, fetcher_on_io, f) < 0)
		r = err_nomem(err);
	if (r < 0) {
		fetcher_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

int fetcher_open(struct procs *ps, const struct fetcher_config *config, const char *host,
		 const struct image_auth *auth, struct credentials *c,
		 const struct fetcher_ops *ops, void *arg, struct fetcher **ret, struct err *err)
{
	struct fetcher_options o = { .host = host };
	struct hosts hosts = { 0 };
	int r = credentials_set(c, auth, err);

	if (r == 0)
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
