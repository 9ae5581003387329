/* `fetch`: commands from huskd in, documents and progress out, layers into files and pipes. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/limits.h"
#include "image/registry/push.h"
#include "image/registry/registry.h"
#include "image/wire.h"
#include "image/worker/channel.h"
#include "image/worker/confine.h"
#include "image/worker/worker.h"

#define MAX_CPU_S 3600
#define MAX_THREADS 128	    /* of the resolver, which outlive a request that has given up */
#define MAX_PING (64 * KIB) /* of the answer, which is not used */

_Static_assert(REGISTRY_MAX_REQUESTS == WIRE_MAX_REQUESTS, "what the protocol promises");

struct fetch {
	struct registry *reg; /* NULL until Open */
	struct channel ch;
};

/* ---- events ---- */

static void fetch_on_done(void *arg, uint32_t id, int code, const struct registry_result *res,
			  const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		channel_send_failure(&f->ch, id, code, res->again, err);
	else if (res->data)
		channel_send_document(&f->ch, id, res->data, res->len);
	else
		channel_send_done(&f->ch, id, res->fetched);
}

static void fetch_on_progress(void *arg, uint32_t id, uint64_t bytes)
{
	struct fetch *f = arg;

	channel_send_progress(&f->ch, id, bytes);
}

static void fetch_on_pushed(void *arg, uint32_t id, int code, enum push_how how,
			    const struct err *err)
{
	static const Worker__Pushed__How names[] = {
		[PUSH_SENT] = WORKER__PUSHED__HOW__SENT,
		[PUSH_PRESENT] = WORKER__PUSHED__HOW__PRESENT,
		[PUSH_MOUNTED] = WORKER__PUSHED__HOW__MOUNTED,
	};
	Worker__Pushed p = WORKER__PUSHED__INIT;
	Worker__Event e = WORKER__EVENT__INIT;
	struct fetch *f = arg;

	if (code < 0) {
		channel_send_failure(&f->ch, id, code, false, err);
		return;
	}
	p.how = names[how];
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_PUSHED;
	e.pushed = &p;
	channel_send(&f->ch, &e);
}

static void fetch_on_ping(void *arg, uint32_t id, int code, const struct registry_result *res,
			  const struct err *err)
{
	struct fetch *f = arg;

	if (code < 0)
		channel_send_failure(&f->ch, id, code, false, err);
	else
		channel_send_done(&f->ch, id, 0);
}

/* ---- Open ---- */

/* Texts go into the arena, the list of headers into `lines`. */
static int make_host(struct pb_arena *a, const Worker__Options__Host *in, struct host *h,
		     char *lines[HOSTS_MAX_HEADERS + 1])
{
	int r = 0;

	*h = (struct host){
		.url = in->url,
		.capabilities = in->capabilities,
		.skip_verify = in->skip_verify,
		.login = in->login,
		.mirror = in->mirror,
		.ns = in->ns,
		.headers = in->n_headers ? lines : NULL,
	};
	for (size_t k = 0; k < in->n_headers && r == 0; k++)
		r = wire_text(a, in->headers[k], &lines[k]);
	lines[in->n_headers] = NULL;
	if (r == 0)
		r = wire_text(a, in->ca, &h->ca);
	if (r == 0)
		r = wire_text(a, in->cert, &h->cert);
	return r < 0 ? r : wire_text(a, in->key, &h->key);
}

static int open_registry(struct fetch *f, struct pb_arena *a, const Worker__Options *in,
			 struct err *err)
{
	char *lines[HOSTS_MAX][HOSTS_MAX_HEADERS + 1];
	struct hosts hosts = { .n = in->n_hosts };
	char *user, *password, *token, *identity, *http, *https, *no_proxy;
	struct registry_options o = { .host = in->host,
				      .hosts = &hosts,
				      .retry_base_ms = in->retry_base_ms,
				      .stall_s = in->stall_s };

	for (size_t k = 0; k < hosts.n; k++)
		if (make_host(a, in->hosts[k], &hosts.v[k], lines[k]) < 0)
			return err_nomem(err);
	if (wire_text(a, in->user, &user) < 0 || wire_text(a, in->password, &password) < 0 ||
	    wire_text(a, in->token, &token) < 0 ||
	    wire_text(a, in->identity_token, &identity) < 0 ||
	    wire_text(a, in->http_proxy, &http) < 0 || wire_text(a, in->https_proxy, &https) < 0 ||
	    wire_text(a, in->no_proxy, &no_proxy) < 0)
		return err_nomem(err);
	o.user = user;
	o.password = password;
	o.token = token;
	o.identity_token = identity;
	o.http_proxy = http;
	o.https_proxy = https;
	o.no_proxy = no_proxy;
	return registry_new(&o, fetch_on_done, fetch_on_progress, f, &f->reg, err);
}

static int fetch_open(struct fetch *f, const Worker__Command *c, struct err *err)
{
	cleanup_fd int fd = channel_take_fd(&f->ch);
	struct pb_arena arena;
	const Worker__Options *o;
	char *data = NULL;
	size_t len = 0;
	int r = lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;

	if (r == 0)
		r = read_fd(fd, WIRE_MAX_OPTIONS, &data, &len);
	if (r < 0)
		return err_errno(err, r, "read the options");
	pb_arena_init(&arena, WIRE_OPTIONS_MEMORY);
	r = wire_options(&arena, (const uint8_t *)data, len, &o, err);
	if (r == 0)
		r = open_registry(f, &arena, o, err);
	pb_arena_fini(&arena);
	explicit_bzero(data, len);
	free(data);
	return r;
}

/* ---- requests ---- */

/* A request that could not be started is answered; the process continues. */
static int started(struct fetch *f, uint32_t id, int r, const struct err *why)
{
	if (r < 0)
		channel_send_failure(&f->ch, id, r, false, why);
	return 0;
}

static int fetch_manifest(struct fetch *f, const Worker__Command *c, struct err *err)
{
	const struct registry_document q = { .id = c->id,
					     .repository = c->manifest->repository,
					     .reference = c->manifest->reference,
					     .max = IMAGE_MAX_DOCUMENT };
	struct err why = { 0 };

	return started(f, c->id, registry_manifest(f->reg, &q, &why), &why);
}

static int fetch_blob(struct fetch *f, const Worker__Command *c, struct err *err)
{
	const struct registry_document q = { .id = c->id,
					     .repository = c->blob->repository,
					     .reference = c->blob->digest,
					     .max = IMAGE_MAX_DOCUMENT };
	struct err why = { 0 };

	return started(f, c->id, registry_blob(f->reg, &q, &why), &why);
}

static int fetch_layer(struct fetch *f, const Worker__Command *c, struct err *err)
{
	const Worker__Layer *l = c->layer;
	struct registry_layer q = {
		.id = c->id,
		.repository = l->repository,
		.digest = l->digest,
		.size = l->size,
		.have = l->have,
		.file_fd = l->file ? channel_take_fd(&f->ch) : -1,
		.pipe_fd = -1,
	};
	struct err why = { 0 };

	if (l->pipe)
		q.pipe_fd = channel_take_fd(&f->ch);
	return started(f, c->id, registry_layer(f->reg, &q, &why), &why);
}

static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

static int fetch_push(struct fetch *f, const Worker__Command *c, struct err *err)
{
	const Worker__Push *p = c->push;
	const struct push_request q = {
		.id = c->id,
		.repository = p->repository,
		.digest = p->digest,
		.size = p->size,
		.from = or_null(p->from),
		.reference = or_null(p->reference),
		.media_type = or_null(p->media_type),
		.fd = p->file ? channel_take_fd(&f->ch) : -1,
	};
	struct err why = { 0 };

	return started(f, c->id, push_start(f->reg, &q, fetch_on_pushed, f, &why), &why);
}

/* GET /v2/ */
static int fetch_ping(struct fetch *f, const Worker__Command *c, struct err *err)
{
	const struct registry_call q = { .id = c->id,
					 .method = "GET",
					 .path = "",
					 .max = MAX_PING,
					 .body_fd = -1,
					 .done = fetch_on_ping,
					 .arg = f };
	struct err why = { 0 };

	return started(f, c->id, registry_call(f->reg, &q, &why), &why);
}

#define CASE(c) WORKER__COMMAND__COMMAND_##c

static int fetch_command(struct fetch *f, const Worker__Command *c, struct err *err)
{
	static int (*const handlers[])(struct fetch * f, const Worker__Command *c,
				       struct err *err) = {
		[CASE(OPEN)] = fetch_open, [CASE(MANIFEST)] = fetch_manifest,
		[CASE(BLOB)] = fetch_blob, [CASE(LAYER)] = fetch_layer,
		[CASE(PUSH)] = fetch_push, [CASE(PING)] = fetch_ping,
	};

	if ((c->command_case == CASE(OPEN)) != !f->reg)
		return err_set(err, -EPROTO, "the first command is Open, and no other one is");
	if (c->command_case >= ARRAY_SIZE(handlers) || !handlers[c->command_case])
		return err_set(err, -EPROTO, "command %d is not for fetch", (int)c->command_case);
	return handlers[c->command_case](f, c, err);
}
#undef CASE

/* ---- the process ---- */

static int commands(struct fetch *f, bool wait, struct err *err)
{
	const Worker__Command *c;
	int r = channel_receive(&f->ch, wait, err);

	while (r == 0) {
		r = channel_next(&f->ch, &c, err);
		if (r < 0 || !c)
			break;
		r = fetch_command(f, c, err);
	}
	return r;
}

static int wait_and_work(struct fetch *f, struct err *err)
{
	bool ready = false;
	int r;

	/* Before Open there is nothing else to wait for. */
	if (!f->reg)
		return commands(f, true, err);
	r = registry_poll(f->reg, CHANNEL_FD, &ready, 1000, err);
	return r < 0 || !ready ? r : commands(f, false, err);
}

int worker_fetch(void)
{
	const struct confine_limits limits = { .memory = 1 * GIB,
					       .file = IMAGE_MAX_LAYER,
					       .cpu_s = MAX_CPU_S,
					       .threads = MAX_THREADS };
	static struct fetch f;
	struct err err = { 0 };
	int r = registry_prepare(&err);

	channel_init(&f.ch);
	confine_fetch_prepare();
	if (r == 0)
		r = confine_common(&limits, &err);
	if (r == 0)
		r = confine_fetch(&err);
	while (r == 0 && !f.ch.eof && !f.ch.broken)
		r = wait_and_work(&f, &err);
	if (r < 0)
		channel_send_failure(&f.ch, 0, r, false, &err);
	registry_free(f.reg);
	channel_fini(&f.ch);
	return r < 0;
}
