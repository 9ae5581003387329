/*
 * Work that blocks on the disk (sync, removal of big files), done by one thread beside the loop, in
 * order. The thread touches nothing but the jobs that it is given.
 */
#ifndef HUSK_IMAGE_STORE_DISK_H
#define HUSK_IMAGE_STORE_DISK_H

#include "base/compiler.h"
#include "base/err.h"

struct disk;
struct loop;
struct store;

/* Embedded in its owner, which must stay until `done`. */
struct disk_job {
	struct disk_job *next;
	int (*work)(struct disk_job *j, struct err *err);		   /* in the thread */
	void (*done)(struct disk_job *j, int code, const struct err *err); /* on the loop */
	int code;
	struct err err;
};

int disk_new(struct loop *l, struct disk **ret, struct err *err) must_check;
/* Waits until all jobs are done, and calls their `done`, which may add more. NULL is fine. */
void disk_free(struct disk *d);
/* Never fails. work and done are set by the caller. */
void disk_add(struct disk *d, struct disk_job *j);
/* Removes a file soon; `path` must not be used again. */
void disk_unlink(struct disk *d, const char *path);

/* What was written so far, rows as well as the names of layers' files, survives a loss of power
 * when `done` comes; never from inside this call. *ret is valid until then. */
struct disk_sync;
typedef void (*disk_sync_fn)(void *arg, int code, const struct err *err);
int disk_sync(struct store *s, disk_sync_fn done, void *arg, struct disk_sync **ret,
	      struct err *err) must_check;
/* `done` does not come any more; the disk goes on. NULL is fine. */
void disk_sync_forget(struct disk_sync *y);

#endif
