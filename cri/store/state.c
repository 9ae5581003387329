#include "cri/store/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"
#include "cri/store/db.h"
#include "image/image.h"

void state_init(struct state *s, struct db *db)
{
	*s = (struct state){ .db = db };
	TAILQ_INIT(&s->pods);
}

/* ---- objects ---- */

struct pod *pod_new(struct huskd *d)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->huskd = d;
	p->refs = 1;
	TAILQ_INIT(&p->containers);
	return p;
}

struct pod *pod_ref(struct pod *p)
{
	p->refs++;
	return p;
}

void pod_unref(struct pod *p)
{
	if (!p || --p->refs > 0)
		return;
	free(p->handler);
	free(p->address);
	if (p->config)
		cri__pod_sandbox_config__free_unpacked(p->config, NULL);
	free(p);
}

struct container *container_new(void)
{
	struct container *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->refs = 1;
	return c;
}

struct container *container_ref(struct container *c)
{
	c->refs++;
	return c;
}

void container_unref(struct container *c)
{
	if (!c || --c->refs > 0)
		return;
	ev_timer_del(&c->stop_timer);
	free(c->reason);
	free(c->message);
	free(c->image_id);
	free(c->image_name);
	free(c->image_ref);
	if (c->config)
		cri__container_config__free_unpacked(c->config, NULL);
	pod_unref(c->pod);
	free(c);
}

void state_link_pod(struct state *s, struct pod *p)
{
	TAILQ_INSERT_TAIL(&s->pods, p, link);
	s->n_pods++;
}

void state_link_container(struct pod *p, struct container *c)
{
	c->pod = pod_ref(p);
	TAILQ_INSERT_TAIL(&p->containers, c, link);
	p->n_containers++;
}

static void unlink_container(struct container *c)
{
	TAILQ_REMOVE(&c->pod->containers, c, link);
	c->pod->n_containers--;
	c->removed = true;
	container_unref(c);
}

static void unlink_pod(struct state *s, struct pod *p)
{
	struct container *c;

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

/* ---- adding ---- */

static bool same_pod_name(const Cri__PodSandboxMetadata *a, const Cri__PodSandboxMetadata *b)
{
	return a->attempt == b->attempt && strcmp(a->name, b->name) == 0 &&
	       strcmp(a->namespace_, b->namespace_) == 0 && strcmp(a->uid, b->uid) == 0;
}

int state_add_pod(struct state *s, struct huskd *d, Cri__PodSandboxConfig *config,
		  const char *handler, struct pod **ret, struct pod **ret_other, struct err *err)
{
	struct pod *p, *other;

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
	p = pod_new(d);
	if (!p)
		return err_set(err, -ENOMEM, "no memory for a pod");
	p->handler = strdup(handler);
	p->address = strdup("");
	p->created_at = now_real_ns();
	p->config = config;
	int r = p->handler && p->address ? random_id(p->id) : -ENOMEM;
	if (r == 0)
		r = db_put_pod(s->db, p, err);
	else
		(void)err_errno(err, r, "make a pod id");
	if (r < 0) {
		p->config = NULL;
		pod_unref(p);
		return r;
	}
	state_link_pod(s, p);
	*ret = p;
	return 0;
}

int state_add_container(struct state *s, struct pod *p, Cri__ContainerConfig *config,
			const struct image_info *image, struct container **ret, struct err *err)
{
	struct container *c, *other;

	TAILQ_FOREACH(other, &p->containers, link)
	{
		if (other->config->metadata->attempt == config->metadata->attempt &&
		    strcmp(other->config->metadata->name, config->metadata->name) == 0)
			return err_set(err, -EEXIST,
				       "container %s (attempt %u) of pod %s exists with id %s",
				       config->metadata->name, config->metadata->attempt,
				       p->config->metadata->name, other->id);
	}
	if (p->n_containers >= STATE_CONTAINERS_MAX)
		return err_set(err, -ENOBUFS, "pod %s has %d containers already", p->id,
			       STATE_CONTAINERS_MAX);
	c = container_new();
	if (!c)
		return err_set(err, -ENOMEM, "no memory for a container");
	c->reason = strdup("");
	c->message = strdup("");
	c->image_id = strdup(image->id);
	c->image_name = strdup(image->repo_tags[0] ? image->repo_tags[0] : config->image->image);
	c->image_ref = strdup(image->repo_digests[0] ? image->repo_digests[0] : image->id);
	c->created_at = now_real_ns();
	c->config = config;
	int r = c->reason && c->message && c->image_id && c->image_name && c->image_ref
			? random_id(c->id)
			: -ENOMEM;
	if (r < 0) {
		(void)err_errno(err, r, "make a container id");
	} else {
		c->pod = pod_ref(p);
		r = db_put_container(s->db, c, err);
		c->pod = NULL;
		pod_unref(p);
	}
	if (r < 0) {
		c->config = NULL;
		container_unref(c);
		return r;
	}
	state_link_container(p, c);
	*ret = c;
	return 0;
}

/* ---- changing ---- */

void state_remove_container(struct state *s, struct container *c)
{
	struct err err = { 0 };

	if (c->removed)
		return;
	if (db_delete_container(s->db, c->id, &err) < 0)
		log_error("database", "container", c->id, "err", err_text(&err));
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
	if (db_delete_pod(s->db, p->id, &err) < 0)
		log_error("database", "pod", p->id, "err", err_text(&err));
	unlink_pod(s, p);
}

int state_save_pod(struct state *s, struct pod *p, struct err *err)
{
	struct err e = { 0 };

	if (p->removed)
		return 0;
	int r = db_update_pod(s->db, p, &e);
	if (r < 0) {
		log_error("database", "pod", p->id, "err", err_text(&e));
		return err_set(err, r, "%s", err_text(&e));
	}
	return 0;
}

int state_save_container(struct state *s, struct container *c, struct err *err)
{
	struct err e = { 0 };

	if (c->removed)
		return 0;
	int r = db_update_container(s->db, c, &e);
	if (r < 0) {
		log_error("database", "container", c->id, "err", err_text(&e));
		return err_set(err, r, "%s", err_text(&e));
	}
	return 0;
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
		return err_set(err, -ENOENT, "no pod sandbox %.*s", STATE_ID_LEN, id);
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
		return err_set(err, -ENOENT, "no container %.*s", STATE_ID_LEN, id);
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
