/*
 * What the store has done to its files by the thread beside the loop (base/thread/work.h): removal,
 * and syncs. The thread touches nothing but the jobs that it is given. Loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_DISK_H
#define HUSK_IMAGE_STORE_DISK_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"

struct store;
struct work;

/* Removes a file, or a directory with all in it, after what the thread has to do before; `path`
 * must not be used again. A missing one is fine. */
void disk_remove(struct work *disk, const char *path);

/* What was written so far, rows as well as the names of layers' files, survives a loss of power
 * when `done` comes; never from inside this call. *ret is valid until then. */
struct disk_sync;
int disk_sync(struct store *s, wait_fn done, void *arg, struct disk_sync **ret,
	      struct err *err) must_check;
/* `done` does not come any more; the disk goes on. NULL is fine. */
void disk_sync_forget(struct disk_sync *y);

#endif
