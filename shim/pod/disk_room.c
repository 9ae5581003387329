#include "shim/pod/disk_room.h"

#include "base/log.h"

static void disk_room_on_set(const struct ttrpc_result *res, void *arg)
{
	struct disk_room *d = arg;

	d->sent = false;
	if (res->code < 0)
		log_debug("the guest was not told of the host's disk", "err", err_text(res->err));
	else
		d->told = d->sent_full;
	if (res->code == 0)
		disk_room_beat(d);
}

void disk_room_beat(struct disk_room *d)
{
	if (!d->agent || d->sent || d->told == d->full)
		return;
	d->sent_full = d->full;
	d->sent = agent_set_disk_room(d->agent, d->full, disk_room_on_set, d) == 0;
}

void disk_room_set(struct disk_room *d, bool full)
{
	d->full = full;
	disk_room_beat(d);
}

void disk_room_start(struct disk_room *d, struct agent *agent)
{
	d->agent = agent;
	disk_room_beat(d);
}

void disk_room_stop(struct disk_room *d)
{
	d->agent = NULL;
}
