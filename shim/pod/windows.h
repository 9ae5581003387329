/*
 * Which sectors of the VM's one disk belong to which host file. Pure bookkeeping: the monitor is
 * told elsewhere. A read-only file that several containers use has one window, counted by users;
 * one that nobody uses any more, but that is mapped still, is taken up again. Owned by the sandbox;
 * loop thread.
 */
#ifndef HUSK_SHIM_POD_WINDOWS_H
#define HUSK_SHIM_POD_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/limits.h"

struct window {
	uint64_t first, sectors; /* 512-byte units */
	dev_t dev;
	ino_t ino;
	bool readonly;
	bool mapped;	/* the monitor has the file, or was asked to take it */
	bool unmapping; /* it was asked to let go */
	bool held;	/* the guest may go on using the sectors: they go to no other file */
	uint32_t users;
};

struct windows {
	struct window *slots; /* ascending by `first` */
	size_t n, room;
};

void windows_fini(struct windows *w);
/* A window for the file (dev, ino) of `bytes` bytes: the one that is there when both are read-only,
 * else a new one. *ret_map tells whether it has to be mapped. -EBUSY when the file is in use and
 * one of the two is writable, -ENOSPC when the table or the disk is full, -EINVAL for 0 bytes. */
int windows_get(struct windows *w, dev_t dev, ino_t ino, uint64_t bytes, bool readonly,
		uint64_t *ret_first, uint64_t *ret_sectors, bool *ret_map,
		struct err *err) must_check;
/* One user less. True: nobody uses it any more; it keeps its sectors until windows_free. */
bool windows_put(struct windows *w, uint64_t first);
/* Gives the sectors back. Nothing while somebody uses or holds them, or the file is mapped. */
void windows_free(struct windows *w, uint64_t first);
/* NULL = there is none. Valid until the next windows_get or windows_free. */
struct window *windows_find(const struct windows *w, uint64_t first);

#endif
