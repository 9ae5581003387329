/* The part of a pull that looks whether the disk has room for it. */
#include "base/util.h"
#include "image/job/pull_internal.h"
#include "image/job/unpacker.h"
#include "image/store/gc.h"
#include "image/store/layers.h"
#include "image/store/space.h"

#define WAIT_NS (2 * NS_PER_S) /* for what goes to be gone */
#define LOOK_AGAIN_NS (200 * NS_PER_MS)

uint64_t pull_taken(const struct job *j)
{
	const struct image_pull *p = container_of(j, const struct image_pull, job);
	uint64_t n = 0;

	for (size_t k = 0; k < p->n_layers; k++) {
		const struct layer *l = &p->layers[k];

		n += l->unpacker ? space_of_path(unpacker_path(l->unpacker)) : 0;
		n += l->ingest ? space_of_fd(ingest_fd(l->ingest)) : 0;
	}
	for (size_t k = 0; k < p->n_groups; k++)
		if (p->groups[k].merge)
			n += space_of_path(merge_path(p->groups[k].merge));
	return n;
}

/* What has to be fetched, which is the least that the disk needs. What a layer unpacks to is seen
 * when it does. */
static int bytes_to_come(struct image_pull *p, uint64_t *ret, struct err *err)
{
	struct store *s = p->jobs->store;

	*ret = 0;
	for (size_t k = 0; k < p->n_layers; k++) {
		const struct layer *l = &p->layers[k];
		int r = layers_has(s, l->group->layers.id, l->group->layers.first > 0, err);

		if (r == 0)
			r = blob_has(s, l->blob.digest, err);
		if (r < 0)
			return r;
		*ret += r ? 0 : l->blob.size;
	}
	return 0;
}

int pull_room_wait(struct image_pull *p, uint64_t *ret_ns, struct err *err)
{
	uint64_t bytes = 0;
	int r;

	if (p->has_room)
		return 1;
	r = bytes_to_come(p, &bytes, err);
	if (r < 0)
		return r;
	r = bytes ? gc_wait_room(p->jobs->store, bytes, WAIT_NS, &p->room_until_ns, err) : 1;
	p->has_room = r > 0;
	*ret_ns = LOOK_AGAIN_NS;
	return r;
}
