/*
 * Waiting for an ingest file that is in somebody's hands (ingest_open: -EBUSY). Either another job
 * of this process has it, and gives it back in ingest_keep, _drop or _commit; or another process
 * does, a worker that dies slowly, and its lock ends with it. For the latter one thread for each
 * such file waits in flock(2), beside the loop. Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_INGEST_WAIT_H
#define HUSK_IMAGE_STORE_INGEST_WAIT_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"

struct store;

/* fn is called once, on the loop, when it is worth while to try ingest_open again; it may not call
 * into the store. */
int ingest_wait_add(struct store *s, const char *digest, wait_fn fn, void *arg,
		    struct err *err) must_check;
/* The entry must be there: added, and not called. */
void ingest_wait_remove(struct store *s, const char *digest, const void *arg);

/* ---- the store's own ---- */

/* A job of this process has given the file back. */
void ingest_wait_run(struct store *s, const char *digest);
/* Forgets all; fn is not called. */
void ingest_wait_close(struct store *s);

#endif
