#include "cri/husk_archive.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

/* Less than the client may get, so that reading it holds the loop for a moment only. */
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

static void on_save_cancel(struct rpc_call *call, void *arg)
{
	rpc_reply_err(call, -ECANCELED, NULL);
	save_free(arg);
}

static void save_step(struct rpc_call *call, void *arg)
{
	Husk__V1__SaveChunk m = HUSK__V1__SAVE_CHUNK__INIT;
	struct save *v = arg;
	struct err err = { 0 };
	ssize_t n = image_save_read(v->from, v->buf, sizeof(v->buf), &err);
	int r;

	if (n > 0) {
		m.data.data = v->buf;
		m.data.len = (size_t)n;
		m.total = image_save_size(v->from);
		r = rpc_send(call, &m.base);
		if (r == 0 || r == -EPIPE) { /* -EPIPE: on_save_cancel is coming */
			rpc_on_sent(call, save_step, v);
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

HANDLER(husk_handle_save)
{
	const Husk__V1__SaveImagesRequest *req = (const void *)msg;
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
	rpc_on_cancel(call, on_save_cancel, v);
	save_step(call, v);
}
