#include "cri/images/husk_archive.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/images/images.h"

/* Smaller than it may be, so that a read holds the loop for a moment only. */
#define SAVE_CHUNK (256 * KIB)

/* ---- save: a chunk at a time, the next one when there is room for it ---- */

struct save {
	struct image_save *from;
	uint8_t buf[SAVE_CHUNK];
};

static void save_free(struct save *v)
{
	image_save_free(v->from);
	free(v);
}

static void husk_archive_on_save_cancel(struct rpc_call *call, void *arg)
{
	rpc_reply_err(call, -ECANCELED, NULL);
	save_free(arg);
}

static void husk_archive_on_save_sent(struct rpc_call *call, void *arg)
{
	Husk__SaveChunk m = HUSK__SAVE_CHUNK__INIT;
	struct save *v = arg;
	struct err err = { 0 };
	ssize_t n = image_save_read(v->from, v->buf, sizeof(v->buf), &err);
	int r;

	if (n > 0) {
		m.data.data = v->buf;
		m.data.len = (size_t)n;
		m.total = image_save_size(v->from);
		r = rpc_send(call, &m.base);
		if (r == 0 || r == -EPIPE) { /* -EPIPE: husk_archive_on_save_cancel is coming */
			rpc_on_sent(call, husk_archive_on_save_sent, v);
			return;
		}
		(void)err_errno(&err, r, "send the archive");
		n = r;
	}
	if (n < 0)
		rpc_reply_err(call, (int)n, &err);
	else
		rpc_reply(call, NULL);
	save_free(v);
}

static int parse_format(const char *s, enum image_archive *ret, struct err *err)
{
	if (str_empty(s) || str_eq(s, "oci"))
		*ret = IMAGE_ARCHIVE_OCI;
	else if (str_eq(s, "docker-archive"))
		*ret = IMAGE_ARCHIVE_DOCKER;
	else
		return err_set(err, -EINVAL, "format '%.40s': 'oci' or 'docker-archive' expected",
			       s);
	return 0;
}

void husk_archive_handle_save(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__SaveImagesRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct save *v = calloc(1, sizeof(*v));
	struct err err = { 0 };
	enum image_archive format = IMAGE_ARCHIVE_OCI;
	int r = v ? parse_format(req->format, &format, &err) : -ENOMEM;

	if (r == 0)
		r = image_save_open(d->images, req->images, req->n_images, format, &v->from, &err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		free(v);
		return;
	}
	log_info("saving images", "first", req->images[0]);
	rpc_on_cancel(call, husk_archive_on_save_cancel, v);
	husk_archive_on_save_sent(call, v);
}

/* ---- load: chunks into a file, then progress ---- */

/* An image that was loaded; the message about it must not be lost. */
struct loaded {
	struct loaded *next;
	char *id;
	char **names;
};

struct load {
	struct rpc_call *call;
	struct image_load *to;		      /* NULL: it has ended */
	bool whole;			      /* the client has sent all */
	struct images_progress last_progress; /* of the image on its way */
	struct loaded *first, **last;
	int code; /* of the end */
	struct err err;
};

static void loaded_free(struct loaded *m)
{
	free(m->id);
	strv_free(m->names);
	free(m);
}

static void load_free(struct load *l)
{
	image_load_cancel(l->to);
	images_progress_fini(&l->last_progress);
	while (l->first) {
		struct loaded *m = l->first;

		l->first = m->next;
		loaded_free(m);
	}
	free(l);
}

static void husk_archive_on_load_cancel(struct rpc_call *call, void *arg)
{
	rpc_reply_err(call, -ECANCELED, NULL);
	load_free(arg);
}

static void load_fail(struct load *l, int code, const struct err *err)
{
	log_limited(LOG_ERROR, "loading images failed", "err", err_text(err));
	rpc_reply_err(l->call, code, err);
	load_free(l);
}

static void husk_archive_on_load_progress(void *arg, const char *image,
					  const struct image_progress *progress)
{
	Husk__LoadProgress m = HUSK__LOAD_PROGRESS__INIT;
	cleanup_free Husk__LayerProgress **list = NULL;
	struct load *l = arg;

	images_progress_layers(&l->last_progress, progress->layers, progress->n_layers);
	m.n_layers = images_layer_list(&l->last_progress, &list);
	m.layers = list;
	m.image = (char *)image;
	/* One that finds the stream busy is dropped: the next one says more. */
	(void)!rpc_send(l->call, &m.base);
}

/* Sends what was loaded, one after the other, then the end. */
static void husk_archive_on_load_sent(struct rpc_call *call, void *arg)
{
	Husk__LoadProgress msg = HUSK__LOAD_PROGRESS__INIT;
	struct load *l = arg;
	struct loaded *m = l->first;

	if (rpc_sending(call)) {
		rpc_on_sent(call, husk_archive_on_load_sent, l);
		return;
	}
	if (m) {
		msg.loaded_id = m->id;
		msg.loaded_names = m->names;
		msg.n_loaded_names = strv_len(m->names);
		if (rpc_send(call, &msg.base) < 0)
			return; /* husk_archive_on_load_cancel is coming */
		rpc_on_sent(call, husk_archive_on_load_sent, l);
		l->first = m->next;
		if (!l->first)
			l->last = &l->first;
		loaded_free(m);
	} else if (!l->to && l->code < 0) {
		load_fail(l, l->code, &l->err);
	} else if (!l->to) {
		rpc_reply(call, NULL);
		load_free(l);
	}
}

static void husk_archive_on_loaded(void *arg, const char *id, char *const *names)
{
	struct load *l = arg;
	size_t n = strv_len(names);
	struct loaded *m = calloc(1, sizeof(*m));

	log_info("image is loaded", "id", id, "name", n ? names[0] : "");
	if (m) {
		m->id = strdup(id);
		m->names = calloc(n + 1, sizeof(*m->names));
	}
	if (!m || !m->id || !m->names) {
		if (m)
			loaded_free(m);
		return;
	}
	for (size_t i = 0; i < n; i++)
		m->names[i] = strdup(names[i]);
	*l->last = m;
	l->last = &m->next;
	husk_archive_on_load_sent(l->call, l);
}

static void husk_archive_on_load_done(void *arg, int code, const struct err *err)
{
	struct load *l = arg;

	l->to = NULL;
	l->code = code;
	if (code < 0)
		l->err = *err;
	husk_archive_on_load_sent(l->call, l);
}

static const struct image_load_ops load_ops = {
	.progress = husk_archive_on_load_progress,
	.loaded = husk_archive_on_loaded,
	.done = husk_archive_on_load_done,
};

static void husk_archive_on_load_chunk(struct rpc_call *call, int code, const ProtobufCMessage *msg,
				       void *arg);

static void take_chunk(struct load *l, const Husk__LoadChunk *m)
{
	struct err err = { 0 };
	int r;

	if (m->data.len > HUSK_ARCHIVE_CHUNK_MAX)
		r = err_set(&err, -EINVAL, "a chunk of more than %zu bytes",
			    HUSK_ARCHIVE_CHUNK_MAX);
	else
		r = image_load_put(l->to, m->data.data, m->data.len, &err);
	l->whole = m->last;
	if (r < 0)
		load_fail(l, r, &err);
	else
		rpc_recv(l->call, husk_archive_on_load_chunk, l);
}

static void husk_archive_on_load_chunk(struct rpc_call *call, int code, const ProtobufCMessage *msg,
				       void *arg)
{
	struct load *l = arg;
	struct err err = { 0 };

	if (code == 0 && msg && !l->whole) {
		take_chunk(l, (const void *)msg);
		return;
	}
	if (code == 0 && (msg || !l->whole))
		code = err_set(&err, -EBADMSG, "the archive was cut off on its way");
	if (code == 0)
		code = image_load_start(l->to, &err);
	if (code < 0)
		load_fail(l, code, &err);
}

void husk_archive_handle_load(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__LoadChunk *req = (const void *)msg;
	const char *name = req->options ? req->options->name : NULL;
	struct huskd *d = arg;
	struct load *l = calloc(1, sizeof(*l));
	struct err err = { 0 };
	int r = l ? image_load_new(d->images, name, &load_ops, l, &l->to, &err) : -ENOMEM;

	if (r < 0) {
		free(l);
		rpc_reply_err(call, r, &err);
		return;
	}
	l->call = call;
	l->last = &l->first;
	rpc_on_cancel(call, husk_archive_on_load_cancel, l);
	take_chunk(l, req);
}
