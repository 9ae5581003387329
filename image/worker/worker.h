/*
 * husk-image-worker: the confined side of image/. Its modes (unpack, inherit, fetch, archive,
 * check), their arguments and descriptors, and what they say: base/proto/image_worker.proto. Each
 * is one process that huskd starts for one job; one thread.
 */
#ifndef HUSK_IMAGE_WORKER_WORKER_H
#define HUSK_IMAGE_WORKER_WORKER_H

#include <stdbool.h>

#define WORKER_REPORT_FD 1 /* unpack, inherit, check */
#define WORKER_OUT_FD 3	   /* unpack, inherit: the file to be made */
#define WORKER_LAYER_FD(k) ((k) ? (int)(k) + WORKER_OUT_FD : 0)
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
