/*
 * husk-image-worker: the confined side of image/. Its modes (unpack, inherit, fetch, archive,
 * check), their arguments and descriptors, and what they say: base/proto/image_worker.proto. Each
 * is one process that huskd starts for one job; one thread.
 */
#ifndef HUSK_IMAGE_WORKER_WORKER_H
#define HUSK_IMAGE_WORKER_WORKER_H

#include <stdbool.h>

#include "base/util.h"
#include "image/limits.h"

#define WORKER_REPORT_FD 1 /* unpack, inherit, check */
#define WORKER_OUT_FD 3	   /* unpack, inherit: the file to be made */
#define WORKER_LAYER_FD(k) ((k) ? (int)(k) + WORKER_OUT_FD : 0)
/*
 * Limits of each process of unpack and inherit. What it may allocate makes, with the pages of the
 * libraries, less than 64 MiB resident. The tree of a large layer is mapped from the far end of the
 * file that is being made, a few MiB of it resident at a time (tree.h); the address space has room
 * for all of it.
 */
#define WORKER_MAX_DATA (44 * MIB)
#define WORKER_MAX_ADDRESSES (1 * GIB)
#define WORKER_SPOOL_OFFSET IMAGE_MAX_LAYER
#define WORKER_SPOOL_MAX (1 * GIB)

#define CHECK_FIRST_FD 3
#define CHECK_BLOB 'b'
#define CHECK_LAYER 'l'

/* Each returns the program's exit status. */
int worker_unpack(int argc, char **argv);
int worker_inherit(const char *disks, const char *id);
int worker_check(const char *kinds, bool when_idle);
int worker_fetch(void);
int worker_archive(void);

#endif
