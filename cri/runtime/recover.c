#include "cri/runtime/recover.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/util.h"
#include "cri/net/net.h"
#include "cri/paths.h"
#include "cri/runtime/console.h"
#include "cri/runtime/container.h"
#include "cri/runtime/shim_client.h"
#include "image/image.h"

#define RECOVER_MS 10000 /* then huskd serves, whatever is still open */
#define STATE_MS 5000
#define STALE_MAX 4096 /* left-over directories looked at in one start */

struct recover {
	struct huskd *huskd;
	unsigned pending;
	bool started; /* every shim has been asked */
	bool done_called;
	struct ev_timer timer;
	void (*done)(struct huskd *d);
};

static void finish(struct recover *rec)
{
	if (!rec->done_called) {
		rec->done_called = true;
		ev_timer_del(&rec->timer);
		rec->done(rec->huskd);
	}
	if (rec->pending == 0 && rec->started)
		free(rec);
}

static void one_done(struct recover *rec)
{
	rec->pending--;
	if (rec->pending == 0 && rec->started)
		finish(rec);
}

static void recover_on_time_up(struct ev_timer *t)
{
	struct recover *rec = t->arg;

	log_limited(LOG_WARN, "some pods have not answered yet");
	finish(rec);
}

/* ---- containers ---- */

struct query {
	struct recover *rec;
	struct container *c;
};

static void query_end(struct query *q)
{
	struct recover *rec = q->rec;

	container_unref(q->c);
	free(q);
	one_done(rec);
}

static void recover_on_exit_recorded(void *arg, int code, const struct err *err)
{
	query_end(arg);
}

static void recover_on_state(const struct ttrpc_result *res, void *arg)
{
	const TaskV3__StateResponse *m = res->code == 0 ? (const void *)res->resp : NULL;
	struct query *q = arg;
	struct container *c = q->c;
	bool waits;

	/* The answer may be late: if a client starts the container, that start decides. */
	if (c->removed || c->starting || c->state == CONTAINER_EXITED) {
		query_end(q);
		return;
	}
	if (m && m->status == TASK__STATUS__STOPPED) {
		if (!c->started_at)
			c->started_at = pb_timestamp_ns(m->exited_at);
		if (c->state != CONTAINER_RUNNING) /* until the reason is known */
			container_state_set(c, CONTAINER_RUNNING);
		waits = waits_add(&c->exited, recover_on_exit_recorded, q) == 0;
		container_task_exit(c, m->exit_status, pb_timestamp_ns(m->exited_at));
		if (waits)
			return;
	} else if (m || res->code == -ETIMEDOUT) {
		/* It runs, or ran when last heard of. The huskd before may have died just after it
		 * had started it. */
		if (m && m->status != TASK__STATUS__CREATED && c->state != CONTAINER_RUNNING) {
			container_state_set(c, CONTAINER_RUNNING);
			c->started_at = c->started_at ? c->started_at : now_real_ns();
			(void)state_save_container(&c->pod->huskd->state, c, NULL);
		}
		if (c->state == CONTAINER_RUNNING)
			container_watch(c);
	} else if (res->code == -ENOENT) {
		container_exited(c, EXIT_UNKNOWN, 0, "Unknown",
				 "the shim does not know it any more");
	}
	query_end(q);
}

static void recover_on_half_made_deleted(const struct ttrpc_result *res, void *arg)
{
	struct query *q = arg;

	container_destroy(q->c);
	query_end(q);
}

static void recover_on_execs_dropped(const struct ttrpc_result *res, void *arg)
{
}

/* No client of an exec survives its huskd. One of an older shim does not know it; they stay. */
static void drop_execs(struct container *c)
{
	Shim__DropExecsRequest req = SHIM__DROP_EXECS_REQUEST__INIT;

	req.id = c->id;
	(void)!ttrpc_client_call(c->pod->shim, SVC_SHIM, "DropExecs", &req.base, STATE_MS,
				 recover_on_execs_dropped, NULL);
}

static void recover_container(struct recover *rec, struct container *c)
{
	TaskV3__StateRequest state = TASK_V3__STATE_REQUEST__INIT;
	TaskV3__DeleteRequest del = TASK_V3__DELETE_REQUEST__INIT;
	struct query *q;
	int r;

	if (c->state == CONTAINER_EXITED || !(q = calloc(1, sizeof(*q))))
		return;
	*q = (struct query){ rec, container_ref(c) };
	rec->pending++;
	drop_execs(c);
	state.id = del.id = c->id;
	if (c->state == CONTAINER_CREATING)
		r = ttrpc_client_call(c->pod->shim, SVC_TASK, "Delete", &del.base,
				      CONTAINER_DELETE_MS, recover_on_half_made_deleted, q);
	else
		r = ttrpc_client_call(c->pod->shim, SVC_TASK, "State", &state.base, STATE_MS,
				      recover_on_state, q);
	if (r < 0)
		query_end(q);
}

/* ---- pods ---- */

struct pod_end {
	struct recover *rec;
	struct pod *p;
	bool destroy;
};

static void recover_on_pod_down(void *arg, int code, const struct err *err)
{
	struct pod_end *e = arg;
	struct recover *rec = e->rec;

	if (code == 0 && e->destroy) {
		pod_destroy(e->p);
	} else if (code < 0 && e->destroy) {
		/* It stays visible, so that a client can remove it later. */
		pod_state_set(e->p, POD_NOTREADY);
		(void)state_save_pod(&e->p->huskd->state, e->p, NULL);
	}
	pod_unref(e->p);
	free(e);
	one_done(rec);
}

static void take_down(struct recover *rec, struct pod *p, enum teardown kind)
{
	struct pod_end *e = calloc(1, sizeof(*e));

	if (!e)
		return;
	*e = (struct pod_end){ rec, pod_ref(p), p->state == POD_CREATING };
	rec->pending++;
	pod_teardown(p, kind, recover_on_pod_down, e);
}

/* Its DEL has not gone through: who asks for its end must hear of that, too. */
static bool has_network(const struct pod *p)
{
	return p->huskd->net && net_has(p->huskd->net, p->id);
}

static void recover_pod(struct recover *rec, struct pod *p)
{
	struct container *c, *next;
	struct err err = { 0 };
	cleanup_free char *bundle = path_pod(p->huskd, p->id);

	if (p->state == POD_CREATING) {
		log_info("removing a half made pod", "pod", p->id);
		take_down(rec, p, TEARDOWN_ABORT);
		return;
	}
	if (p->state == POD_NOTREADY && bundle && console_alone(bundle) && !has_network(p)) {
		p->torn_down = true; /* nothing else is left; a reboot removes the bundle, too */
	} else if (p->state == POD_NOTREADY) {
		take_down(rec, p, TEARDOWN_STOP);
		return;
	} else if (pod_attach(p, &err) < 0 || pod_watch(p, &err) < 0) {
		log_limited(LOG_WARN, "the shim of a pod is gone", "pod", p->id, "err",
			    err_text(&err));
		take_down(rec, p, TEARDOWN_DIED);
		return;
	}
	for (c = TAILQ_FIRST(&p->containers); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (p->shim)
			recover_container(rec, c);
		else if (c->state == CONTAINER_CREATING)
			container_destroy(c);
		else
			container_pod_gone(c, TEARDOWN_DIED);
	}
}

/* ---- left-over directories ---- */

static bool known(const struct state *s, const char *id)
{
	struct container *c;
	struct pod *p;

	TAILQ_FOREACH(p, &s->pods, link)
	{
		if (str_eq(p->id, id))
			return true;
		TAILQ_FOREACH(c, &p->containers, link)
		{
			if (str_eq(c->id, id))
				return true;
		}
	}
	return false;
}

struct leftover {
	struct recover *rec;
	char path[]; /* NUL-terminated */
};

static void recover_on_leftover_deleted(void *arg, int code, const struct err *err)
{
	struct leftover *l = arg;
	struct recover *rec = l->rec;

	if (code < 0)
		log_limited(LOG_WARN, "cannot end a left-over pod", "path", l->path, "err",
			    err_text(err));
	else
		(void)!remove_tree(l->path, NULL);
	free(l);
	one_done(rec);
}

/* A bundle without a record: its shim may still run. */
static void remove_pod_dir(struct recover *rec, const char *path, const char *id)
{
	struct leftover *l = malloc(sizeof(*l) + strlen(path) + 1);
	struct err err = { 0 };

	if (!l)
		return;
	l->rec = rec;
	memcpy(l->path, path, strlen(path) + 1);
	rec->pending++;
	if (shim_delete(rec->huskd, id, path, recover_on_leftover_deleted, l, &err) < 0) {
		log_limited(LOG_WARN, "cannot end a left-over pod", "path", path, "err",
			    err_text(&err));
		free(l);
		one_done(rec);
	}
}

static void remove_unknown(struct recover *rec, const char *dir, bool pods)
{
	DIR *d = dir ? opendir(dir) : NULL;
	const struct dirent *e;
	unsigned n = 0;

	while (d && n++ < STALE_MAX && (e = readdir(d))) {
		cleanup_free char *path = NULL;

		if (strlen(e->d_name) != OBJECT_ID_LEN || known(&rec->huskd->state, e->d_name))
			continue;
		path = str_fmt("%s/%s", dir, e->d_name);
		if (!path)
			continue;
		log_info("removing what a dead huskd left", "path", path);
		if (pods)
			remove_pod_dir(rec, path, e->d_name);
		else
			image_discard(rec->huskd->images, path);
	}
	if (d)
		closedir(d);
}

static bool holds(char *const *holders, const char *id)
{
	for (; *holders; holders++)
		if (str_eq(*holders, id))
			return true;
	return false;
}

/* Two databases: after a crash either may know a container that the other does not. */
static void mend_holds(struct huskd *d)
{
	cleanup_strv char **holders = NULL;
	struct err err = { 0 };
	struct container *c;
	struct pod *p;

	if (image_holders(d->images, &holders, &err) < 0) {
		log_limited(LOG_WARN, "cannot list who holds images", "err", err_text(&err));
		return;
	}
	for (char **h = holders; *h; h++) {
		if (!known(&d->state, *h) && image_release(d->images, *h, &err) < 0)
			log_limited(LOG_WARN, "cannot release an image", "err", err_text(&err));
	}
	TAILQ_FOREACH(p, &d->state.pods, link)
	{
		TAILQ_FOREACH(c, &p->containers, link)
		{
			if (!holds(holders, c->id) &&
			    image_hold(d->images, c->image_id, c->id, &err) < 0)
				log_limited(LOG_WARN, "cannot hold the image", "container", c->id,
					    "err", err_text(&err));
		}
	}
}

/* Of a pod that is taken down, the network goes with the rest. */
static bool recover_keeps_network(void *arg, const char *id)
{
	const struct huskd *d = arg;
	struct pod *p;

	TAILQ_FOREACH(p, &d->state.pods, link)
	{
		if (str_eq(p->id, id))
			return p->state == POD_READY;
	}
	return false;
}

int recover_start(struct huskd *d, void (*done)(struct huskd *d), struct err *err)
{
	cleanup_free char *pods = path_pods(d), *containers = path_containers(d);
	cleanup_free char *execs = path_execs(d), *data = path_containers_data(d);
	struct recover *rec = calloc(1, sizeof(*rec));
	struct pod *p, *next;
	int r;

	if (!rec)
		return err_nomem(err);
	rec->huskd = d;
	rec->done = done;
	r = ev_timer_add(d->loop, &rec->timer, RECOVER_MS * NS_PER_MS, recover_on_time_up, rec);
	if (r < 0) {
		free(rec);
		return err_errno(err, r, "start a timer");
	}
	mend_holds(d);
	if (d->net)
		net_reap(d->net, recover_keeps_network, d);
	remove_unknown(rec, pods, true);
	remove_unknown(rec, containers, false);
	remove_unknown(rec, execs, false);
	remove_unknown(rec, data, false);
	for (p = TAILQ_FIRST(&d->state.pods); p; p = next) {
		next = TAILQ_NEXT(p, link);
		recover_pod(rec, p);
	}
	rec->started = true;
	if (rec->pending == 0)
		finish(rec);
	return 0;
}
