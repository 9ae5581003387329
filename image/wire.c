#include "image/wire.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/hosts.h"

#define SMALL 1024u /* a frame that is written without memory */
#define MAX_ERRNO 4095

/* ---- frames ---- */

ssize_t wire_next(const struct buf *in, size_t max, const uint8_t **ret)
{
	struct cur c = cur_of(buf_data(in), buf_len(in));
	uint32_t len;

	if (cur_left(&c) < WIRE_HEADER)
		return 0;
	len = cur_le32(&c);
	if (!len || len > max)
		return -EPROTO;
	if (cur_left(&c) < len)
		return 0;
	*ret = cur_bytes(&c, len);
	return (ssize_t)len;
}

static void put_frame(const ProtobufCMessage *m, size_t len, uint8_t *to)
{
	uint32_t le = htole32((uint32_t)len);

	memcpy(to, &le, WIRE_HEADER);
	protobuf_c_message_pack(m, to + WIRE_HEADER);
}

int wire_frame(const ProtobufCMessage *m, size_t max, uint8_t **ret, size_t *ret_len)
{
	size_t len = protobuf_c_message_get_packed_size(m);

	if (len > max)
		return -EFBIG;
	*ret = malloc(WIRE_HEADER + len);
	if (!*ret)
		return -ENOMEM;
	put_frame(m, len, *ret);
	*ret_len = WIRE_HEADER + len;
	return 0;
}

int wire_write(int fd, const ProtobufCMessage *m, size_t max)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	cleanup_free uint8_t *large = NULL;
	uint8_t small[WIRE_HEADER + SMALL];
	int r;

	if (len <= SMALL && len <= max) {
		put_frame(m, len, small);
		return write_all(fd, small, WIRE_HEADER + len);
	}
	r = wire_frame(m, max, &large, &len);
	return r < 0 ? r : write_all(fd, large, len);
}

static int unpack(struct pb_arena *a, const ProtobufCMessageDescriptor *d, const uint8_t *data,
		  size_t len, ProtobufCMessage **ret, struct err *err)
{
	int r = pb_unpack(a, d, data, len, ret);

	if (r == -ENOMEM)
		return err_nomem(err);
	if (r < 0)
		return err_set(err, -EPROTO, "%s",
			       r == -ENOBUFS ? "message of too many parts" : "malformed message");
	return 0;
}

static bool name_ok(const char *s)
{
	return strnlen(s, WIRE_MAX_NAME + 1) <= WIRE_MAX_NAME && utf8_valid(s);
}

/* ---- what huskd reads ---- */

static bool failure_ok(const Worker__Failure *f)
{
	return f->error > 0 && f->error <= MAX_ERRNO && f->text.len <= WIRE_MAX_TEXT;
}

static bool images_ok(const Worker__Images *images)
{
	if (images->n_images > ARCHIVE_MAX_IMAGES)
		return false;
	for (size_t k = 0; k < images->n_images; k++) {
		const Worker__Images__Image *i = images->images[k];

		if (!digest_valid(i->digest) || i->n_names > ARCHIVE_MAX_NAMES)
			return false;
		for (size_t n = 0; n < i->n_names; n++)
			if (!name_ok(i->names[n]))
				return false;
	}
	return true;
}

static bool event_ok(const Worker__Event *e, size_t len)
{
	switch (e->event_case) {
	case WORKER__EVENT__EVENT_DOCUMENT:
		return e->id && e->document->data.len <= IMAGE_MAX_DOCUMENT;
	case WORKER__EVENT__EVENT_IMAGES:
		return e->id && images_ok(e->images);
	case WORKER__EVENT__EVENT_PROGRESS:
	case WORKER__EVENT__EVENT_DONE:
		return e->id && len <= WIRE_MAX_SMALL;
	case WORKER__EVENT__EVENT_PUSHED:
		return e->id && len <= WIRE_MAX_SMALL &&
		       e->pushed->how >= WORKER__PUSHED__HOW__SENT &&
		       e->pushed->how <= WORKER__PUSHED__HOW__MOUNTED;
	case WORKER__EVENT__EVENT_FAILURE:
		return len <= WIRE_MAX_SMALL && failure_ok(e->failure);
	default:
		return false;
	}
}

int wire_event(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Event **ret,
	       struct err *err)
{
	ProtobufCMessage *m;
	int r = unpack(a, &worker__event__descriptor, data, len, &m, err);

	if (r == 0 && !event_ok((const Worker__Event *)m, len))
		r = err_set(err, -EPROTO, "event %d against the rules",
			    (int)((const Worker__Event *)m)->event_case);
	if (r == 0)
		*ret = (const Worker__Event *)m;
	return r;
}

static bool unpack_report_ok(const Worker__UnpackReport *u)
{
	if (u->failure)
		return failure_ok(u->failure);
	for (size_t k = 0; k < u->n_diff_ids; k++)
		if (!digest_valid(u->diff_ids[k]))
			return false;
	return u->n_diff_ids <= IMAGE_MAX_LAYERS;
}

int wire_unpack_report(struct pb_arena *a, const uint8_t *data, size_t len,
		       const Worker__UnpackReport **ret, struct err *err)
{
	ProtobufCMessage *m;
	int r = unpack(a, &worker__unpack_report__descriptor, data, len, &m, err);

	if (r == 0 && !unpack_report_ok((const Worker__UnpackReport *)m))
		r = err_set(err, -EPROTO, "report against the rules");
	if (r == 0)
		*ret = (const Worker__UnpackReport *)m;
	return r;
}

int wire_check_report(struct pb_arena *a, const uint8_t *data, size_t len,
		      const Worker__CheckReport **ret, struct err *err)
{
	const Worker__CheckReport *c;
	ProtobufCMessage *m;
	int r = unpack(a, &worker__check_report__descriptor, data, len, &m, err);

	if (r < 0)
		return r;
	c = (const Worker__CheckReport *)m;
	if (c->failure ? !failure_ok(c->failure) : !digest_valid(c->digest))
		return err_set(err, -EPROTO, "report against the rules");
	*ret = c;
	return 0;
}

int wire_failure(const Worker__Failure *f, struct err *err)
{
	char text[WIRE_MAX_TEXT + 1];

	/* Up to a NUL, if it has one. */
	(void)snprintf(text, sizeof(text), "%.*s", (int)f->text.len, (const char *)f->text.data);
	utf8_repair(text);
	return *text ? err_set(err, -f->error, "%s", text)
		     : err_set(err, -f->error, "%s", strerror(f->error));
}

/* ---- what the worker reads ---- */

static bool layer_ok(const Worker__Layer *l)
{
	return name_ok(l->repository) && digest_valid(l->digest) && l->size <= INT64_MAX &&
	       l->have <= l->size && (!l->have || l->file);
}

static bool push_ok(const Worker__Push *p)
{
	return name_ok(p->repository) && digest_valid(p->digest) && p->size <= INT64_MAX &&
	       name_ok(p->from) && name_ok(p->reference) && name_ok(p->media_type);
}

static bool command_ok(const Worker__Command *c)
{
	switch (c->command_case) {
	case WORKER__COMMAND__COMMAND_OPEN:
		return !c->id;
	case WORKER__COMMAND__COMMAND_MANIFEST:
		return c->id && name_ok(c->manifest->repository) && *c->manifest->reference &&
		       name_ok(c->manifest->reference);
	case WORKER__COMMAND__COMMAND_BLOB:
		return c->id && name_ok(c->blob->repository) && digest_valid(c->blob->digest);
	case WORKER__COMMAND__COMMAND_LAYER:
		return c->id && layer_ok(c->layer);
	case WORKER__COMMAND__COMMAND_PUSH:
		return c->id && push_ok(c->push);
	case WORKER__COMMAND__COMMAND_PING:
	case WORKER__COMMAND__COMMAND_LIST:
		return c->id;
	default:
		return false;
	}
}

int wire_command(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Command **ret,
		 struct err *err)
{
	ProtobufCMessage *m;
	int r = unpack(a, &worker__command__descriptor, data, len, &m, err);

	if (r == 0 && !command_ok((const Worker__Command *)m))
		r = err_set(err, -EPROTO, "command %d against the rules",
			    (int)((const Worker__Command *)m)->command_case);
	if (r == 0)
		*ret = (const Worker__Command *)m;
	return r;
}

size_t wire_command_fds(const Worker__Command *c)
{
	switch (c->command_case) {
	case WORKER__COMMAND__COMMAND_OPEN:
	case WORKER__COMMAND__COMMAND_LIST:
		return 1;
	case WORKER__COMMAND__COMMAND_LAYER:
		return (size_t)c->layer->file + c->layer->pipe;
	case WORKER__COMMAND__COMMAND_PUSH:
		return c->push->file;
	default:
		return 0;
	}
}

static bool bytes_ok(ProtobufCBinaryData b)
{
	return !b.len || !memchr(b.data, '\0', b.len);
}

static bool host_ok(const Worker__Options__Host *h)
{
	for (size_t k = 0; k < h->n_headers; k++)
		if (!bytes_ok(h->headers[k]))
			return false;
	return strstr(h->url, "://") && h->n_headers <= HOSTS_MAX_HEADERS && bytes_ok(h->ca) &&
	       bytes_ok(h->cert) && bytes_ok(h->key);
}

static bool options_ok(const Worker__Options *o)
{
	if (!*o->host || !name_ok(o->host) || !o->n_hosts || o->n_hosts > HOSTS_MAX)
		return false;
	for (size_t k = 0; k < o->n_hosts; k++)
		if (!host_ok(o->hosts[k]))
			return false;
	return bytes_ok(o->user) && bytes_ok(o->password) && bytes_ok(o->token) &&
	       bytes_ok(o->identity_token) && bytes_ok(o->http_proxy) && bytes_ok(o->https_proxy) &&
	       bytes_ok(o->no_proxy);
}

int wire_options(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Options **ret,
		 struct err *err)
{
	ProtobufCMessage *m;
	int r = unpack(a, &worker__options__descriptor, data, len, &m, err);

	if (r == 0 && !options_ok((const Worker__Options *)m))
		r = err_set(err, -EPROTO, "options against the rules");
	if (r == 0)
		*ret = (const Worker__Options *)m;
	return r;
}

int wire_text(struct pb_arena *a, ProtobufCBinaryData b, char **ret)
{
	*ret = NULL;
	if (!b.len)
		return 0;
	*ret = pb_arena_alloc(a, b.len + 1);
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, b.data, b.len);
	(*ret)[b.len] = 0;
	return 0;
}

/* ---- what the worker writes ---- */

void wire_failure_of(Worker__Failure *f, int code, const struct err *err)
{
	const char *text = err_text(err);

	f->error = code < 0 && code >= -MAX_ERRNO ? -code : EIO;
	f->text.data = (uint8_t *)text;
	f->text.len = strnlen(text, WIRE_MAX_TEXT);
}

int wire_write_unpack_report(int fd, Worker__UnpackReport *rep, int code, const struct err *err)
{
	Worker__Failure f = WORKER__FAILURE__INIT;

	if (code < 0) {
		wire_failure_of(&f, code, err);
		rep->failure = &f;
	}
	return wire_write(fd, &rep->base, WIRE_MAX_SMALL);
}
