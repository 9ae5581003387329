#include "cri/store/object.h"

#include <stdlib.h>

#include "base/util.h"

struct pod *pod_new(void)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
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
