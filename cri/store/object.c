#include "cri/store/object.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/util.h"

#define BIT(n) (1u << (n))

/* ---- states ---- */

/* From each state: where it may lead. */
static const unsigned pod_arrows[] = {
	/* NOTREADY: RunPodSandbox failed, and so did taking down what it had made. */
	[POD_CREATING] = BIT(POD_READY) | BIT(POD_NOTREADY),
	[POD_READY] = BIT(POD_NOTREADY),
	[POD_NOTREADY] = 0,
};

static const unsigned container_arrows[] = {
	[CONTAINER_CREATING] = BIT(CONTAINER_CREATED),
	/* EXITED: the start failed, or the shim has lost the container. */
	[CONTAINER_CREATED] = BIT(CONTAINER_RUNNING) | BIT(CONTAINER_EXITED),
	[CONTAINER_RUNNING] = BIT(CONTAINER_EXITED),
	[CONTAINER_EXITED] = 0,
};

static bool may(const unsigned *arrows, size_t n, unsigned from, unsigned to)
{
	return from < n && to < n && (arrows[from] & BIT(to));
}

bool pod_state_may(enum pod_state from, enum pod_state to)
{
	return may(pod_arrows, ARRAY_SIZE(pod_arrows), from, to);
}

bool container_state_may(enum container_state from, enum container_state to)
{
	return may(container_arrows, ARRAY_SIZE(container_arrows), from, to);
}

void pod_state_set(struct pod *p, enum pod_state to)
{
	check(pod_state_may(p->state, to));
	p->state = to;
}

void container_state_set(struct container *c, enum container_state to)
{
	check(container_state_may(c->state, to));
	c->state = to;
}

/* ---- references ---- */

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
	check(p->refs > 0);
	p->refs++;
	return p;
}

void pod_unref(struct pod *p)
{
	if (!p)
		return;
	check(p->refs > 0);
	if (--p->refs > 0)
		return;
	/* A list holds a reference of what is in it, and a container one of its pod. */
	check(TAILQ_EMPTY(&p->containers));
	free(p->handler);
	free(p->address);
	free(p->death);
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
	check(c->refs > 0);
	c->refs++;
	return c;
}

void container_unref(struct container *c)
{
	if (!c)
		return;
	check(c->refs > 0);
	if (--c->refs > 0)
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
