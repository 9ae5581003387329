#include "cri/images/husk_images.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/paths.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

/* ---- one image as a message; strings are lent ---- */

static void fill(Husk__ImageSummary *m, const struct image_info *i)
{
	husk__image_summary__init(m);
	m->id = i->id;
	m->repo_tags = i->repo_tags;
	m->n_repo_tags = strv_len(i->repo_tags);
	m->repo_digests = i->repo_digests;
	m->n_repo_digests = strv_len(i->repo_digests);
	m->size = i->size;
	m->created = i->config.created;
	m->stored_at = i->created_ns;
	m->pinned = i->pinned;
	m->containers = i->holders;
	m->damaged = i->damaged;
}

void husk_images_handle_list(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__ListImagesRequest *req = (const void *)msg;
	Husk__ListImagesResponse resp = HUSK__LIST_IMAGES_RESPONSE__INIT;
	struct huskd *d = arg;
	struct image_info **images = NULL;
	struct err err = { 0 };
	size_t n = 0;
	int r = image_list(d->images, req->image, &images, &n, &err);
	cleanup_free Husk__ImageSummary *items = NULL;
	cleanup_free Husk__ImageSummary **list = NULL;

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	items = calloc(n + 1, sizeof(*items));
	list = calloc(n + 1, sizeof(*list));
	if (items && list) {
		for (size_t i = 0; i < n; i++) {
			fill(&items[i], images[i]);
			list[i] = &items[i];
		}
		resp.n_images = n;
		resp.images = list;
		rpc_reply(call, &resp.base);
	} else {
		rpc_reply_err(call, -ENOMEM, NULL);
	}
	image_list_free(images, n);
}

/* As image_get, with a text for the person who typed the name. */
static int find_image(struct huskd *d, const char *ref, struct image_info **ret, struct err *err)
{
	int r = str_empty(ref) ? -EINVAL : image_get(d->images, ref, ret, err);

	if (r == -ENOENT)
		return err_set(err, r, "there is no image '%s'; 'husk images' lists them", ref);
	return r == -EINVAL && str_empty(ref) ? err_set(err, r, "image is empty") : r;
}

void husk_images_handle_inspect(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__InspectImageRequest *req = (const void *)msg;
	Husk__InspectImageResponse resp = HUSK__INSPECT_IMAGE_RESPONSE__INIT;
	struct huskd *d = arg;
	cleanup_image_info struct image_info *i = NULL;
	cleanup_strv char **layers = NULL;
	struct err err = { 0 };
	Husk__ImageSummary s;
	int r = find_image(d, req->image, &i, &err);

	if (r == 0)
		r = image_layers(d->images, i->id, &layers, &err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	fill(&s, i);
	resp.summary = &s;
	resp.config_json = i->config_json;
	resp.chain_id = i->chain_id;
	resp.layers = layers;
	resp.n_layers = strv_len(layers);
	rpc_reply(call, &resp.base);
}

struct tag {
	struct rpc_call *call;
	char *name;
};

static void tag_free(struct tag *t)
{
	free(t->name);
	free(t);
}

static void husk_images_on_tag_synced(void *arg, int code, const struct err *err)
{
	Husk__TagImageResponse resp = HUSK__TAG_IMAGE_RESPONSE__INIT;
	struct tag *t = arg;

	resp.name = t->name;
	if (code == 0)
		rpc_reply(t->call, &resp.base);
	else
		rpc_reply_err(t->call, code, err);
	tag_free(t);
}

void husk_images_handle_tag(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__TagImageRequest *req = (const void *)msg;
	struct huskd *d = arg;
	cleanup_image_info struct image_info *i = NULL;
	struct tag *t = calloc(1, sizeof(*t));
	struct err err = { 0 };
	int r = t ? find_image(d, req->image, &i, &err) : err_nomem(&err);

	if (r == 0) {
		t->call = call;
		r = image_tag(d->images, req->image, req->name, &t->name, &err);
	}
	if (r == 0) {
		log_info("image has a new name", "id", i->id, "name", t->name);
		r = image_sync(d->images, husk_images_on_tag_synced, t, &err);
	}
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		if (t)
			tag_free(t);
	}
}

struct removal {
	struct rpc_call *call;
	struct image_untagged gone;
};

/* Also when nothing can be written: that is tried again. */
static void husk_images_on_removed(void *arg, int code, const struct err *err)
{
	Husk__RemoveImageResponse resp = HUSK__REMOVE_IMAGE_RESPONSE__INIT;
	struct removal *m = arg;

	resp.untagged = m->gone.names;
	resp.n_untagged = strv_len(m->gone.names);
	if (m->gone.deleted)
		resp.deleted = m->gone.deleted;
	rpc_reply(m->call, &resp.base);
	image_untagged_fini(&m->gone);
	free(m);
}

void husk_images_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__RemoveImageRequest *req = (const void *)msg;
	struct huskd *d = arg;
	cleanup_image_info struct image_info *i = NULL;
	struct removal *m = calloc(1, sizeof(*m));
	struct err err = { 0 };
	int r = m ? find_image(d, req->image, &i, &err) : err_nomem(&err);

	if (r == 0)
		r = image_untag(d->images, req->image, req->force, &m->gone, &err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		free(m);
		return;
	}
	m->call = call;
	if (image_written(d->images, husk_images_on_removed, m, NULL) < 0)
		husk_images_on_removed(m, 0, NULL);
}

/* ---- disk use ---- */

/* The writable disks of containers, which the image store does not know. */
static void container_use(const struct huskd *d, Husk__DiskUse *m)
{
	const struct container *c;
	const struct pod *p;

	husk__disk_use__init(m);
	m->kind = (char *)"containers";
	TAILQ_FOREACH(p, &d->state.pods, link)
	{
		TAILQ_FOREACH(c, &p->containers, link)
		{
			cleanup_free char *dir = path_container_data(d, c->id);
			cleanup_free char *file = dir ? str_fmt("%s/scratch.ext4", dir) : NULL;
			bool running = c->state == CONTAINER_RUNNING;
			struct stat st;
			uint64_t bytes;

			m->count++;
			m->active += running;
			if (!file || stat(file, &st) < 0)
				continue;
			bytes = (uint64_t)st.st_blocks * 512;
			m->bytes += bytes;
			m->reclaimable += running ? 0 : bytes;
		}
	}
}

void husk_images_handle_usage(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Husk__DiskUsageResponse resp = HUSK__DISK_USAGE_RESPONSE__INIT;
	Husk__DiskUse items[IMAGE_USE_KINDS + 1], *list[IMAGE_USE_KINDS + 1];
	struct image_use use[IMAGE_USE_KINDS];
	struct huskd *d = arg;
	struct err err = { 0 };
	int r = image_usage(d->images, use, &err);

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	for (size_t k = 0; k < IMAGE_USE_KINDS; k++) {
		husk__disk_use__init(&items[k]);
		items[k].kind = (char *)image_use_name((enum image_use_kind)k);
		items[k].count = use[k].count;
		items[k].active = use[k].active;
		items[k].bytes = use[k].bytes;
		items[k].reclaimable = use[k].reclaimable;
	}
	container_use(d, &items[IMAGE_USE_KINDS]);
	for (size_t k = 0; k < ARRAY_SIZE(items); k++)
		list[k] = &items[k];
	resp.uses = list;
	resp.n_uses = ARRAY_SIZE(list);
	rpc_reply(call, &resp.base);
}

struct prune {
	struct rpc_call *call;
	struct image_pruned gone;
};

static void husk_images_on_pruned(void *arg, int code, const struct err *err)
{
	Husk__PruneResponse resp = HUSK__PRUNE_RESPONSE__INIT;
	struct prune *p = arg;

	resp.images = p->gone.images;
	resp.n_images = strv_len(p->gone.images);
	resp.blobs = p->gone.blobs;
	resp.bytes = p->gone.bytes;
	rpc_reply(p->call, &resp.base);
	image_pruned_fini(&p->gone);
	free(p);
}

void husk_images_handle_prune(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__PruneRequest *req = (const void *)msg;
	const struct image_prune_options o = {
		.dangling = req->images,
		.all = req->all_images,
		.blobs = req->blobs,
		.dry_run = req->dry_run,
	};
	struct prune *p = calloc(1, sizeof(*p));
	struct huskd *d = arg;
	struct err err = { 0 };
	int r = p ? image_prune(d->images, &o, &p->gone, &err) : err_nomem(&err);

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		free(p);
		return;
	}
	p->call = call;
	if (image_written(d->images, husk_images_on_pruned, p, NULL) < 0)
		husk_images_on_pruned(p, 0, NULL);
}
