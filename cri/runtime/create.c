#include "cri/runtime/create.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/util.h"
#include "cri/paths.h"
#include "cri/runtime/container.h"
#include "cri/runtime/shim_client.h"
#include "cri/runtime/spec.h"
#include "cri/runtime/spec_check.h"
#include "image/image.h"

struct create {
	struct container *c;
	struct rpc_call *call;
	char *json; /* config.json, until it is in its file */
	int code;   /* why it is undone */
	struct err err;
};

static void create_free(struct create *cr)
{
	container_unref(cr->c);
	free(cr->json);
	free(cr);
}

/* ---- files ---- */

static int make_bundle(struct container *c, const char *json, char **ret, struct err *err)
{
	cleanup_free char *dir = path_container(c->pod->huskd, c->id);
	cleanup_free char *file = dir ? str_fmt("%s/config.json", dir) : NULL;
	cleanup_free char *fifo = dir ? str_fmt("%s/stdin", dir) : NULL;
	int r;

	if (!file || !fifo)
		return err_nomem(err);
	r = mkdir_p(dir, 0700, err);
	if (r == 0)
		r = write_file_atomic(file, json, strlen(json), 0600, false, err);
	/* The shim keeps its end open: input does not end while no client is attached. */
	if (r == 0 && c->config->stdin && mkfifo(fifo, 0600) < 0)
		r = err_errno(err, -errno, "make %s", fifo);
	if (r == 0)
		*ret = take_ptr(&dir);
	return r;
}

static int make_log(struct container *c, char **ret_uri, struct err *err)
{
	cleanup_free char *path = NULL;
	int r = spec_check_log_path(c->pod->config, c->config, &path, err);

	if (r < 0)
		return r;
	if (!path) {
		/* Not "": a client may attach to it. */
		*ret_uri = strdup("file:///dev/null");
		return *ret_uri ? 0 : err_nomem(err);
	}
	*ret_uri = str_fmt("cri-log://%s", path);
	if (!*ret_uri)
		return err_nomem(err);
	*strrchr(path, '/') = '\0';
	return *path ? mkdir_p(path, 0755, err) : 0;
}

/* ---- the call ---- */

static void set_mount(Types__Mount *m, const char *type, const char *source, char **options,
		      size_t n)
{
	types__mount__init(m);
	m->type = (char *)type;
	m->source = (char *)source;
	m->options = options;
	m->n_options = n;
}

static void create_on_created(const struct ttrpc_result *res, void *arg);

/* Layers lowest first, the scratch disk, the overlay over them (shim/pod/rootfs.h). */
static int call_create(struct create *cr, char **layers, const char *scratch, const char *bundle,
		       const char *log_uri, struct err *err)
{
	static char *ro[] = { (char *)"ro", (char *)"loop" },
		    *rw[] = { (char *)"rw", (char *)"loop" };
	TaskV3__CreateTaskRequest req = TASK_V3__CREATE_TASK_REQUEST__INIT;
	struct container *c = cr->c;
	size_t n = strv_len(layers), total = n + 2;
	cleanup_free Types__Mount *mounts = calloc(total, sizeof(*mounts));
	cleanup_free Types__Mount **list = calloc(total, sizeof(*list));
	cleanup_free char *in = c->config->stdin ? str_fmt("fifo://%s/stdin", bundle) : strdup("");
	int r;

	if (!mounts || !list || !in)
		return err_nomem(err);
	for (size_t i = 0; i < n; i++)
		set_mount(&mounts[i], "ext4", layers[i], ro, 2);
	set_mount(&mounts[n], "ext4", scratch, rw, 2);
	set_mount(&mounts[n + 1], "overlay", "overlay", NULL, 0);
	for (size_t i = 0; i < total; i++)
		list[i] = &mounts[i];
	req.id = c->id;
	req.bundle = (char *)bundle;
	req.n_rootfs = total;
	req.rootfs = list;
	req.terminal = c->config->tty;
	req.stdin = in;
	req.stdout = (char *)log_uri;
	req.stderr = c->config->tty ? req.stderr : (char *)log_uri;
	r = container_call(c, "Create", &req.base, CONTAINER_CREATE_MS, create_on_created, cr);
	return r < 0 ? err_errno(err, r, "call the shim") : 0;
}

/* ---- the end ---- */

static void create_fail(struct create *cr, int code, const struct err *err)
{
	struct err full = { 0 };
	struct container *c = cr->c;

	(void)err_set(&full, code, "container %.200s: %s", c->config->metadata->name,
		      err->msg[0] ? err_text(err) : strerror(-code));
	log_limited(LOG_ERROR, "CreateContainer failed", "container", c->id, "pod", c->pod->id,
		    "err", err_text(&full));
	container_destroy(c);
	rpc_reply_err(cr->call, code, &full);
	create_free(cr);
}

static void create_on_undone(const struct ttrpc_result *res, void *arg)
{
	struct create *cr = arg;

	create_fail(cr, cr->code, &cr->err);
}

/* Takes back what the shim has made: the name must be free for the next try. */
static void undo(struct create *cr, int code, const struct err *err)
{
	TaskV3__DeleteRequest req = TASK_V3__DELETE_REQUEST__INIT;
	int r = -ECONNRESET;

	cr->code = code;
	if (err)
		cr->err = *err;
	req.id = cr->c->id;
	if (cr->c->pod->shim)
		r = ttrpc_client_call(cr->c->pod->shim, SVC_TASK, "Delete", &req.base,
				      CONTAINER_DELETE_MS, create_on_undone, cr);
	if (r < 0)
		create_fail(cr, cr->code, &cr->err);
}

static void create_on_committed(void *arg, int code, const struct err *err)
{
	Cri__CreateContainerResponse resp = CRI__CREATE_CONTAINER_RESPONSE__INIT;
	struct create *cr = arg;
	struct container *c = cr->c;

	if (code == 0 && (rpc_cancelled(cr->call) || c->removed))
		code = -ECANCELED;
	if (code < 0) {
		/* A huskd that starts now must not take it for created. */
		(void)state_save_container(&c->pod->huskd->state, c, NULL);
		undo(cr, code, err);
		return;
	}
	container_state_set(c, CONTAINER_CREATED);
	resp.container_id = c->id;
	log_info("container is created", "container", c->id, "pod", c->pod->id, "name",
		 c->config->metadata->name, "image", c->image_name);
	rpc_reply(cr->call, &resp.base);
	create_free(cr);
}

static void create_on_created(const struct ttrpc_result *res, void *arg)
{
	struct create *cr = arg;
	struct container *c = cr->c;
	struct err err = { 0 };
	int r = res->code;

	if (r < 0) {
		create_fail(cr, r, res->err);
		return;
	}
	r = rpc_cancelled(cr->call) || c->removed
		    ? -ECANCELED
		    : state_commit_container(&c->pod->huskd->state, c, CONTAINER_CREATED,
					     create_on_committed, cr, &err);
	if (r < 0)
		undo(cr, r, &err);
}

static int create_files(struct create *cr, struct err *err)
{
	struct container *c = cr->c;
	struct huskd *d = c->pod->huskd;
	cleanup_strv char **layers = NULL;
	cleanup_free char *scratch = path_scratch(d, c->id), *bundle = NULL, *log_uri = NULL;
	int r = scratch ? image_layers(d->images, c->image_id, &layers, err) : err_nomem(err);

	if (r == 0)
		r = make_bundle(c, cr->json, &bundle, err);
	if (r == 0)
		r = make_log(c, &log_uri, err);
	if (r == 0)
		r = call_create(cr, layers, scratch, bundle, log_uri, err);
	return r;
}

/* Does it still make sense, after a wait? */
static int check_wanted(const struct create *cr, struct err *err)
{
	const struct pod *p = cr->c->pod;

	if (rpc_cancelled(cr->call))
		return -ECANCELED;
	if (cr->c->removed || p->state != POD_READY || !p->shim)
		return err_set(err, -EBUSY, "pod sandbox %s is not ready", p->id);
	return 0;
}

static void create_on_scratch(void *arg, int code, const struct err *err)
{
	struct create *cr = arg;
	struct err why = *err;

	if (code == 0)
		code = check_wanted(cr, &why);
	if (code == 0)
		code = create_files(cr, &why);
	if (code < 0)
		create_fail(cr, code, &why);
}

/* Its row is there, so that the next huskd knows what it finds of the rest. */
static void create_on_recorded(void *arg, int code, const struct err *err)
{
	struct create *cr = arg;
	struct huskd *d = cr->c->pod->huskd;
	cleanup_free char *scratch = path_scratch(d, cr->c->id);
	struct err why = *err;

	if (code == 0)
		code = scratch ? check_wanted(cr, &why) : err_nomem(&why);
	if (code == 0)
		code = image_scratch_create(d->images, scratch, create_on_scratch, cr, &why);
	if (code < 0)
		create_fail(cr, code, &why);
}

/* What must be right before anything is made. */
static int create_check(struct huskd *d, const Cri__CreateContainerRequest *in,
			struct pod **ret_pod, struct image_info **ret_image, char **ret_json,
			int *ret_signal, bool *ret_chosen, struct err *err)
{
	const Cri__ContainerConfig *config = in->config;
	struct spec_input spec = { .container = config };
	struct pod *p;
	int r;

	if (!config || !config->metadata)
		return err_set(err, -EINVAL, "config or config.metadata is missing");
	if (!config->image || str_empty(config->image->image))
		return err_set(err, -EINVAL, "config.image is missing");
	r = state_find_pod(&d->state, in->pod_sandbox_id, &p, err);
	if (r < 0)
		return r;
	if (p->state != POD_READY || !p->shim)
		return err_set(err, -EBUSY, "pod sandbox %s is not ready", p->id);
	r = image_get(d->images, config->image->image, ret_image, err);
	if (r < 0)
		return err_wrap(err, r, "image %.200s", config->image->image);
	spec.pod_id = p->id;
	spec.pod = p->config;
	spec.image = &(*ret_image)->config;
	spec.image_name = config->image->image;
	r = spec_check_container(&spec, err);
	if (r == 0)
		r = spec_stop_signal(&spec, ret_signal, ret_chosen, err);
	if (r == 0)
		r = spec_build(&spec, ret_json, err);
	if (r == 0)
		r = path_check_space(d, err);
	if (r == 0)
		*ret_pod = p;
	return r;
}

static int add_container(struct pod *p, Cri__ContainerConfig *config,
			 const struct image_info *image, struct container **ret, struct err *err)
{
	const struct state_image from = {
		.id = image->id,
		.name = image->repo_tags[0] ? image->repo_tags[0] : config->image->image,
		.ref = image->repo_digests[0] ? image->repo_digests[0] : image->id,
	};

	return state_add_container(&p->huskd->state, p, config, &from, ret, err);
}

void create_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__CreateContainerRequest *in = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	cleanup_image_info struct image_info *image = NULL;
	cleanup_free char *json = NULL;
	Cri__ContainerConfig *config = NULL;
	struct create *cr = NULL;
	struct container *c = NULL;
	struct pod *p = NULL;
	int signo = 0;
	bool chosen = false;
	int r = create_check(d, in, &p, &image, &json, &signo, &chosen, &err);

	if (r < 0 && in->config && in->config->metadata && !str_empty(in->config->metadata->name))
		(void)err_wrap(&err, r, "container %.200s", in->config->metadata->name);
	if (r == 0) {
		config = (void *)pb_clone(&in->config->base);
		cr = calloc(1, sizeof(*cr));
		r = config && cr ? 0 : err_nomem(&err);
	}
	if (r == 0)
		r = add_container(p, config, image, &c, &err);
	if (r < 0) {
		if (config)
			cri__container_config__free_unpacked(config, NULL);
		free(cr);
		rpc_reply_err(call, r, &err);
		return;
	}
	c->stop_signal = signo;
	c->stop_chosen = chosen;
	*cr = (struct create){ .c = container_ref(c), .call = call, .json = take_ptr(&json) };
	r = image_hold(d->images, c->image_id, c->id, &err);
	if (r == 0)
		r = state_written(&d->state, create_on_recorded, cr, &err);
	if (r < 0)
		create_fail(cr, r, &err);
}
