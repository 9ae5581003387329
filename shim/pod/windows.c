#include "shim/pod/windows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define ROOM_FIRST 16u

void windows_fini(struct windows *w)
{
	free_ptr(&w->slots);
	w->n = w->room = 0;
}

struct window *windows_find(const struct windows *w, uint64_t first)
{
	for (size_t i = 0; i < w->n; i++) {
		if (w->slots[i].first == first)
			return &w->slots[i];
	}
	return NULL;
}

static int make_room(struct windows *w)
{
	size_t room = w->room ? MIN_OF(2 * w->room, POD_DISKS_MAX) : ROOM_FIRST;
	struct window *slots;

	if (w->n < w->room)
		return 0;
	slots = reallocarray(w->slots, room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	w->slots = slots;
	w->room = room;
	return 0;
}

/* First fit; the table is ordered, so one pass finds the gap and the slot. */
static int insert(struct windows *w, uint64_t sectors, struct window **ret)
{
	uint64_t at = 0;
	size_t i;

	if (w->n == POD_DISKS_MAX)
		return -ENOSPC;
	if (make_room(w) < 0)
		return -ENOMEM;
	for (i = 0; i < w->n; i++) {
		if (w->slots[i].first - at >= sectors)
			break;
		at = w->slots[i].first + w->slots[i].sectors;
	}
	if (VM_DISK_SECTORS - at < sectors)
		return -ENOSPC;
	memmove(&w->slots[i + 1], &w->slots[i], (w->n - i) * sizeof(w->slots[0]));
	w->n++;
	w->slots[i] = (struct window){ .first = at, .sectors = sectors };
	*ret = &w->slots[i];
	return 0;
}

int windows_get(struct windows *w, dev_t dev, ino_t ino, uint64_t bytes, bool readonly,
		uint64_t *ret_first, uint64_t *ret_sectors, bool *ret_map, struct err *err)
{
	uint64_t unit = VM_DISK_ALIGN * VM_SECTOR_SIZE, sectors;
	struct window *win;
	int r;

	if (bytes == 0)
		return err_set(err, -EINVAL, "the file is empty");
	if (bytes > VM_DISK_SECTORS * VM_SECTOR_SIZE)
		return err_set(err, -ENOSPC, "the file is larger than the VM's disk");
	sectors = (bytes + unit - 1) / unit * VM_DISK_ALIGN;
	for (size_t i = 0; i < w->n; i++) {
		win = &w->slots[i];
		if (win->dev != dev || win->ino != ino)
			continue;
		/* Without users: it is on its way out, or it is one that can be taken up again. */
		if (!win->users && (!win->readonly || !readonly || !win->mapped || win->unmapping))
			continue;
		if (!win->readonly || !readonly)
			return err_set(err, -EBUSY,
				       "the file is in use by another container of the pod");
		if (win->sectors == sectors)
			goto found;
	}
	r = insert(w, sectors, &win);
	if (r == -ENOMEM)
		return err_nomem(err);
	if (r < 0)
		return err_set(err, r, "no room for another disk in the VM (at most %u)",
			       POD_DISKS_MAX);
	win->dev = dev;
	win->ino = ino;
	win->readonly = readonly;
found:
	win->users++;
	*ret_first = win->first;
	*ret_sectors = win->sectors;
	*ret_map = !win->mapped;
	return 0;
}

bool windows_put(struct windows *w, uint64_t first)
{
	struct window *win = windows_find(w, first);

	if (!win || win->users == 0)
		return false;
	return --win->users == 0;
}

void windows_free(struct windows *w, uint64_t first)
{
	struct window *win = windows_find(w, first);
	size_t i;

	if (!win || win->users || win->mapped || win->held)
		return;
	i = (size_t)(win - w->slots);
	w->n--;
	memmove(win, win + 1, (w->n - i) * sizeof(*win));
}
