#include "cri/runtime/filters.h"

#include <string.h>

#include "base/util.h"

Cri__PodSandboxState pod_cri_state(const struct pod *p)
{
	return p->state == POD_READY ? CRI__POD_SANDBOX_STATE__SANDBOX_READY
				     : CRI__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
}

Cri__ContainerState container_cri_state(const struct container *c)
{
	switch (c->state) {
	case CONTAINER_CREATING:
	case CONTAINER_CREATED:
		return CRI__CONTAINER_STATE__CONTAINER_CREATED;
	case CONTAINER_RUNNING:
		return CRI__CONTAINER_STATE__CONTAINER_RUNNING;
	case CONTAINER_EXITED:
		return CRI__CONTAINER_STATE__CONTAINER_EXITED;
	}
	return CRI__CONTAINER_STATE__CONTAINER_UNKNOWN;
}

/* protobuf-c makes one entry type per map; all look like this. */
struct map_entry {
	ProtobufCMessage base;
	char *key, *value;
};

static const char *map_get(void *const *entries, size_t n, const char *key)
{
	/* The last one wins, as in every map of protobuf. */
	for (size_t i = n; i > 0; i--) {
		const struct map_entry *e = entries[i - 1];

		if (str_eq(e->key, key))
			return e->value;
	}
	return NULL;
}

static bool labels_match(void *const *selector, size_t n_selector, void *const *labels, size_t n)
{
	for (size_t i = 0; i < n_selector; i++) {
		const struct map_entry *e = selector[i];
		const char *value = map_get(labels, n, e->key);

		if (!value || !str_eq(value, e->value))
			return false;
	}
	return true;
}

bool filter_pod(const Cri__PodSandboxFilter *f, const struct pod *p)
{
	if (p->state == POD_CREATING)
		return false;
	if (!f)
		return true;
	if (!str_empty(f->id) && !str_starts(p->id, f->id))
		return false;
	if (f->state && f->state->state != pod_cri_state(p))
		return false;
	return labels_match((void **)f->label_selector, f->n_label_selector,
			    (void **)p->config->labels, p->config->n_labels);
}

bool filter_container(const Cri__ContainerFilter *f, const struct container *c)
{
	if (c->state == CONTAINER_CREATING)
		return false;
	if (!f)
		return true;
	if (!str_empty(f->id) && !str_starts(c->id, f->id))
		return false;
	if (!str_empty(f->pod_sandbox_id) && !str_starts(c->pod->id, f->pod_sandbox_id))
		return false;
	if (f->state && f->state->state != container_cri_state(c))
		return false;
	return labels_match((void **)f->label_selector, f->n_label_selector,
			    (void **)c->config->labels, c->config->n_labels);
}
