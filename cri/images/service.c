#include "cri/images/service.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/images/images.h"

#define STREAM_CHUNK 100 /* images in one message */

/* ---- one image as a message; strings are lent ---- */

struct item {
	Cri__Image m;
	Cri__Int64Value uid;
	Cri__ImageSpec spec;
};

static void fill(struct item *item, const struct image_info *i)
{
	Cri__Image *m = &item->m;

	cri__image__init(m);
	cri__int64_value__init(&item->uid);
	cri__image_spec__init(&item->spec);
	m->id = i->id;
	m->repo_tags = i->repo_tags;
	m->n_repo_tags = strv_len(i->repo_tags);
	m->repo_digests = i->repo_digests;
	m->n_repo_digests = strv_len(i->repo_digests);
	m->size = i->size;
	if (i->has_uid) {
		item->uid.value = i->uid;
		m->uid = &item->uid;
	}
	m->username = i->username;
	m->pinned = i->pinned;
	item->spec.image = i->id;
	m->spec = &item->spec;
}

static const char *ref_of(const Cri__ImageSpec *spec)
{
	return spec ? spec->image : "";
}

static void image_service_list(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ListImagesRequest *req = (const void *)msg;
	struct huskd *d = arg;
	Cri__ListImagesResponse resp = CRI__LIST_IMAGES_RESPONSE__INIT;
	struct image_info **images = NULL;
	struct err err = { 0 };
	size_t n = 0;
	int r = image_list(d->images, req->filter ? ref_of(req->filter->image) : NULL, &images, &n,
			   &err);
	cleanup_free struct item *items = NULL;
	cleanup_free Cri__Image **list = NULL;

	if (r < 0) {
		images_reply_cri_err(call, r, &err);
		return;
	}
	items = calloc(n + 1, sizeof(*items));
	list = calloc(n + 1, sizeof(*list));
	if (items && list) {
		for (size_t i = 0; i < n; i++) {
			fill(&items[i], images[i]);
			list[i] = &items[i].m;
		}
		resp.n_images = n;
		resp.images = list;
		rpc_reply(call, &resp.base);
	} else {
		rpc_reply_err(call, -ENOMEM, NULL);
	}
	image_list_free(images, n);
}

/* ---- a list that may be long ---- */

struct stream {
	struct image_info **images;
	size_t n, at;
	struct item items[STREAM_CHUNK];
	Cri__Image *list[STREAM_CHUNK];
};

static void stream_free(struct stream *s)
{
	image_list_free(s->images, s->n);
	free(s);
}

/* The next chunk; the last one ends the call. */
static void image_service_on_stream_sent(struct rpc_call *call, void *arg)
{
	Cri__StreamImagesResponse resp = CRI__STREAM_IMAGES_RESPONSE__INIT;
	struct stream *s = arg;
	size_t n = MIN_OF(s->n - s->at, (size_t)STREAM_CHUNK);

	for (size_t i = 0; i < n; i++) {
		fill(&s->items[i], s->images[s->at + i]);
		s->list[i] = &s->items[i].m;
	}
	resp.n_images = n;
	resp.images = s->list;
	s->at += n;
	if (s->at < s->n) {
		int r = rpc_send(call, &resp.base);

		if (r == 0) {
			rpc_on_sent(call, image_service_on_stream_sent, s);
			return;
		}
		rpc_reply_err(call, r, NULL);
	} else {
		rpc_reply(call, n ? &resp.base : NULL);
	}
	stream_free(s);
}

static void image_service_on_stream_cancel(struct rpc_call *call, void *arg)
{
	rpc_reply_err(call, -ECANCELED, NULL);
	stream_free(arg);
}

static void image_service_stream(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__StreamImagesRequest *req = (const void *)msg;
	struct stream *s = calloc(1, sizeof(*s));
	struct huskd *d = arg;
	struct err err = { 0 };
	int r;

	if (!s) {
		rpc_reply_err(call, -ENOMEM, NULL);
		return;
	}
	r = image_list(d->images, req->filter ? ref_of(req->filter->image) : NULL, &s->images,
		       &s->n, &err);
	if (r < 0) {
		images_reply_cri_err(call, r, &err);
		free(s);
		return;
	}
	rpc_on_cancel(call, image_service_on_stream_cancel, s);
	image_service_on_stream_sent(call, s);
}

static void image_service_status(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ImageStatusRequest *req = (const void *)msg;
	struct huskd *d = arg;
	Cri__ImageStatusResponse resp = CRI__IMAGE_STATUS_RESPONSE__INIT;
	Cri__ImageStatusResponse__InfoEntry info = CRI__IMAGE_STATUS_RESPONSE__INFO_ENTRY__INIT;
	Cri__ImageStatusResponse__InfoEntry *infos[] = { &info };
	cleanup_image_info struct image_info *i = NULL;
	cleanup_free char *text = NULL;
	struct err err = { 0 };
	struct item item;
	int r;

	if (str_empty(ref_of(req->image))) {
		rpc_reply_status(call, RPC_INVALID_ARGUMENT, "image is empty");
		return;
	}
	r = image_get(d->images, req->image->image, &i, &err);
	if (r < 0 && r != -ENOENT) {
		images_reply_cri_err(call, r, &err);
		return;
	}
	if (r == 0) {
		fill(&item, i);
		resp.image = &item.m;
	}
	if (r == 0 && req->verbose) {
		json_t *j = json_pack("{s:s, s:o?}", "chainID", i->chain_id, "imageSpec",
				      json_loads(i->config_json, 0, NULL));

		text = j ? json_dumps(j, JSON_COMPACT) : NULL;
		json_decref(j);
		info.key = (char *)"info";
		info.value = text;
		resp.n_info = text ? 1 : 0;
		resp.info = infos;
	}
	rpc_reply(call, &resp.base);
}

/* Also when nothing can be written: that is tried again. */
static void image_service_on_removed(void *arg, int code, const struct err *err)
{
	rpc_reply(arg, NULL);
}

static void image_service_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__RemoveImageRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	int r;

	if (str_empty(ref_of(req->image))) {
		rpc_reply_status(call, RPC_INVALID_ARGUMENT, "image is empty");
		return;
	}
	r = image_remove(d->images, req->image->image, &err);
	if (r == 0)
		r = image_written(d->images, image_service_on_removed, call, &err);
	if (r == -ENOENT)
		rpc_reply(call, NULL);
	else if (r < 0)
		images_reply_cri_err(call, r, &err);
}

static void image_service_fs_info(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	struct huskd *d = arg;
	Cri__ImageFsInfoResponse resp = CRI__IMAGE_FS_INFO_RESPONSE__INIT;
	Cri__FilesystemUsage usage = CRI__FILESYSTEM_USAGE__INIT;
	Cri__FilesystemUsage *list[] = { &usage };
	Cri__FilesystemIdentifier id = CRI__FILESYSTEM_IDENTIFIER__INIT;
	Cri__UInt64Value bytes = CRI__UINT64_VALUE__INIT;
	Cri__UInt64Value inodes = CRI__UINT64_VALUE__INIT;
	struct image_fs_usage u;
	struct err err = { 0 };
	int r = image_fs_info(d->images, &u, &err);

	if (r < 0) {
		images_reply_cri_err(call, r, &err);
		return;
	}
	bytes.value = u.used_bytes;
	inodes.value = u.inodes_used;
	id.mountpoint = (char *)u.mountpoint;
	usage.timestamp = u.timestamp_ns;
	usage.fs_id = &id;
	usage.used_bytes = &bytes;
	usage.inodes_used = &inodes;
	/* Images and container disks share one directory tree: both lists name it. */
	resp.n_image_filesystems = resp.n_container_filesystems = 1;
	resp.image_filesystems = resp.container_filesystems = list;
	rpc_reply(call, &resp.base);
}

/* ---- pulling ---- */

struct pull {
	struct rpc_call *call;
	struct image_pull *handle;
	char *ref;
};

static void pull_free(struct pull *p)
{
	free(p->ref);
	free(p);
}

static void image_service_on_pulled(void *arg, int code, const struct image_pull_result *result,
				    const struct err *err)
{
	Cri__PullImageResponse resp = CRI__PULL_IMAGE_RESPONSE__INIT;
	struct pull *p = arg;

	if (code < 0) {
		log_limited(LOG_ERROR, "PullImage failed", "image", p->ref, "err", err_text(err));
		images_reply_cri_err(p->call, code, err);
	} else {
		log_info("image is pulled", "image", p->ref, "id", result->id);
		resp.image_ref = (char *)result->id;
		rpc_reply(p->call, &resp.base);
	}
	pull_free(p);
}

static void image_service_on_pull_cancel(struct rpc_call *call, void *arg)
{
	struct pull *p = arg;

	log_info("PullImage was cancelled", "image", p->ref);
	image_pull_cancel(p->handle);
	rpc_reply_err(call, -ECANCELED, NULL);
	pull_free(p);
}

static void image_service_pull(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__PullImageRequest *req = (const void *)msg;
	struct pull *p = calloc(1, sizeof(*p));
	struct err err = { 0 };
	int r = -ENOMEM;

	if (p && (p->ref = strdup(ref_of(req->image)))) {
		p->call = call;
		r = images_pull(arg, req, NULL, image_service_on_pulled, p, &p->handle, &err);
	}
	if (r == 0) {
		rpc_on_cancel(call, image_service_on_pull_cancel, p);
		return;
	}
	images_reply_cri_err(call, r, &err);
	if (p)
		pull_free(p);
}

/* ---- the table ---- */

const struct rpc_method image_service_methods[] = {
	{ "ListImages", image_service_list },
	{ "StreamImages", image_service_stream, .streams = true },
	{ "ImageStatus", image_service_status },
	{ "PullImage", image_service_pull },
	{ "RemoveImage", image_service_remove },
	{ "ImageFsInfo", image_service_fs_info },
	{ NULL, NULL },
};
