#include "cri/store/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"
#include "cri/store/statedb.h"

void state_init(struct state *s, struct statedb *db, struct huskd *huskd)
{
	*s = (struct state){ .db = db, .huskd = huskd };
	TAILQ_INIT(&s->pods);
}

/* ---- lists ---- */

static void link_pod(struct state *s, struct pod *p)
{
	p->huskd = s->huskd;
	TAILQ_INSERT_TAIL(&s->pods, p, link);
	s->n_pods++;
}

static void link_container(struct pod *p, struct container *c)
{
	c->pod = pod_ref(p);
	TAILQ_INSERT_TAIL(&p->containers, c, link);
	p->n_containers++;
}

static void unlink_container(struct container *c)
{
	check(!c->removed && c->pod->n_containers > 0);
	TAILQ_REMOVE(&c->pod->containers, c, link);
	c->pod->n_containers--;
	c->removed = true;
	container_unref(c);
}

static void unlink_pod(struct state *s, struct pod *p)
{
	struct container *c;

	check(!p->removed && s->n_pods > 0);
	while ((c = TAILQ_FIRST(&p->containers)))
		unlink_container(c);
	TAILQ_REMOVE(&s->pods, p, link);
	s->n_pods--;
	p->removed = true;
	pod_unref(p);
}

void state_fini(struct state *s)
{
	struct pod *p;

	while ((p = TAILQ_FIRST(&s->pods)))
		unlink_pod(s, p);
}

/* ---- loading ---- */

static void state_on_pod(void *arg, struct pod *p)
{
	link_pod(arg, p);
}

static bool state_on_container(void *arg, struct container *c, const char *pod_id)
{
	struct state *s = arg;
	struct pod *p;

	TAILQ_FOREACH(p, &s->pods, link)
	{
		if (str_eq(p->id, pod_id)) {
			link_container(p, c);
			return true;
		}
	}
	return false;
}

int state_load(struct state *s, struct err *err)
{
	return statedb_load(s->db, state_on_pod, state_on_container, s, err);
}

/* ---- adding ---- */

static bool same_pod_name(const Cri__PodSandboxMetadata *a, const Cri__PodSandboxMetadata *b)
{
	return a->attempt == b->attempt && str_eq(a->name, b->name) &&
	       str_eq(a->namespace_, b->namespace_) && str_eq(a->uid, b->uid);
}

int state_add_pod(struct state *s, Cri__PodSandboxConfig *config, const char *handler,
		  struct pod **ret, struct pod **ret_other, struct err *err)
{
	struct pod *p, *other;
	int r;

	TAILQ_FOREACH(other, &s->pods, link)
	{
		if (!same_pod_name(other->config->metadata, config->metadata))
			continue;
		if (ret_other)
			*ret_other = other;
		return err_set(err, -EEXIST, "pod %s/%s (uid %s, attempt %u) exists with id %s",
			       config->metadata->namespace_, config->metadata->name,
			       config->metadata->uid, config->metadata->attempt, other->id);
	}
	if (s->n_pods >= STATE_PODS_MAX)
		return err_set(err, -ENOBUFS, "there are %d pods already", STATE_PODS_MAX);
	p = pod_new();
	if (!p)
		return err_nomem(err);
	p->handler = strdup(handler);
	p->address = strdup("");
	p->created_at = now_real_ns();
	p->config = config;
	r = p->handler && p->address ? random_id(p->id) : -ENOMEM;
	if (r == 0)
		r = statedb_put_pod(s->db, p, err);
	else
		(void)err_errno(err, r, "make a pod id");
	if (r < 0) {
		p->config = NULL;
		pod_unref(p);
		return r;
	}
	link_pod(s, p);
	*ret = p;
	return 0;
}

int state_add_container(struct state *s, struct pod *p, Cri__ContainerConfig *config,
			const struct state_image *image, struct container **ret, struct err *err)
{
	struct container *c, *other;
	int r;

	TAILQ_FOREACH(other, &p->containers, link)
	{
		if (other->config->metadata->attempt == config->metadata->attempt &&
		    str_eq(other->config->metadata->name, config->metadata->name))
			return err_set(err, -EEXIST,
				       "container %s (attempt %u) of pod %s exists with id %s",
				       config->metadata->name, config->metadata->attempt,
				       p->config->metadata->name, other->id);
	}
	if (p->n_containers >= POD_CONTAINERS_MAX)
		return err_set(err, -ENOBUFS, "pod %s has %u containers already", p->id,
			       POD_CONTAINERS_MAX);
	c = container_new();
	if (!c)
		return err_nomem(err);
	c->reason = strdup("");
	c->message = strdup("");
	c->image_id = strdup(image->id);
	c->image_name = strdup(image->name);
	c->image_ref = strdup(image->ref);
	c->created_at = now_real_ns();
	c->config = config;
	r = c->reason && c->message && c->image_id && c->image_name && c->image_ref
		    ? random_id(c->id)
		    : -ENOMEM;
	if (r < 0) {
		(void)err_errno(err, r, "make a container id");
	} else {
		c->pod = pod_ref(p);
		r = statedb_put_container(s->db, c, err);
		c->pod = NULL;
		pod_unref(p);
	}
	if (r < 0) {
		c->config = NULL;
		container_unref(c);
		return r;
	}
	link_container(p, c);
	*ret = c;
	return 0;
}

/* ---- changing ---- */

void state_remove_container(struct state *s, struct container *c)
{
	struct err err = { 0 };

	if (c->removed)
		return;
	if (statedb_delete_container(s->db, c->id, &err) < 0)
		log_limited(LOG_ERROR, "cannot delete the record", "container", c->id, "err",
			    err_text(&err));
	unlink_container(c);
}

void state_remove_pod(struct state *s, struct pod *p)
{
	struct err err = { 0 };
	struct container *c;

	if (p->removed)
		return;
	while ((c = TAILQ_FIRST(&p->containers)))
		state_remove_container(s, c);
	if (statedb_delete_pod(s->db, p->id, &err) < 0)
		log_limited(LOG_ERROR, "cannot delete the record", "pod", p->id, "err",
			    err_text(&err));
	unlink_pod(s, p);
}

int state_save_pod(struct state *s, struct pod *p, struct err *err)
{
	struct err why = { 0 };
	int r = p->removed ? 0 : statedb_update_pod(s->db, p, p->state, NULL, NULL, &why);

	if (r < 0) {
		log_limited(LOG_ERROR, "cannot write the state", "pod", p->id, "err",
			    err_text(&why));
		(void)err_set(err, r, "%s", err_text(&why));
	}
	return r;
}

int state_save_container(struct state *s, struct container *c, struct err *err)
{
	struct err why = { 0 };
	int r = c->removed ? 0 : statedb_update_container(s->db, c, c->state, NULL, NULL, &why);

	if (r < 0) {
		log_limited(LOG_ERROR, "cannot write the state", "container", c->id, "err",
			    err_text(&why));
		(void)err_set(err, r, "%s", err_text(&why));
	}
	return r;
}

int state_commit_pod(struct state *s, struct pod *p, enum pod_state to, wait_fn done, void *arg,
		     struct err *err)
{
	check(!p->removed);
	return statedb_update_pod(s->db, p, to, done, arg, err);
}

int state_commit_container(struct state *s, struct container *c, enum container_state to,
			   wait_fn done, void *arg, struct err *err)
{
	check(!c->removed);
	return statedb_update_container(s->db, c, to, done, arg, err);
}

int state_written(struct state *s, wait_fn done, void *arg, struct err *err)
{
	return statedb_written(s->db, done, arg, err);
}

/* ---- finding ---- */

int state_find_pod(struct state *s, const char *id, struct pod **ret, struct err *err)
{
	struct pod *p, *found = NULL;

	if (str_empty(id))
		return err_set(err, -EINVAL, "the pod sandbox id is empty");
	TAILQ_FOREACH(p, &s->pods, link)
	{
		if (p->state == POD_CREATING || !str_starts(p->id, id))
			continue;
		if (found)
			return err_set(err, -EINVAL, "pod sandbox id %s fits several", id);
		found = p;
	}
	if (!found)
		return err_set(err, -ENOENT, "no pod sandbox %.*s", OBJECT_ID_LEN, id);
	*ret = found;
	return 0;
}

int state_find_container(struct state *s, const char *id, struct container **ret, struct err *err)
{
	struct container *c, *found = NULL;
	struct pod *p;

	if (str_empty(id))
		return err_set(err, -EINVAL, "the container id is empty");
	TAILQ_FOREACH(p, &s->pods, link)
	{
		TAILQ_FOREACH(c, &p->containers, link)
		{
			if (c->state == CONTAINER_CREATING || !str_starts(c->id, id))
				continue;
			if (found)
				return err_set(err, -EINVAL, "container id %s fits several", id);
			found = c;
		}
	}
	if (!found)
		return err_set(err, -ENOENT, "no container %.*s", OBJECT_ID_LEN, id);
	*ret = found;
	return 0;
}

char *state_text(const char *s)
{
	static char empty[] = "";
	char *t = strndup(s ? s : "", STATE_TEXT_MAX);

	if (!t)
		return strdup(empty);
	utf8_repair(t);
	return t;
}
