/*
 * The image store on disk: layers, blobs and images, who refers to them, and which may be removed.
 * It knows no process and no registry; the jobs (image/job) fill it. A directory belongs to one
 * store at a time. Loop thread only; what waits for the disk has threads beside it (db.h, disk.h).
 *
 *	<dir>/images.db		SQLite: layers, blobs, images, names, holds	db.h
 *	<dir>/layers/sha256/<hex of diff id>.ext4				layers.h
 *	<dir>/blobs/, ingest/							blobs.h
 *	<dir>/tmp/		layers being made; emptied at each start
 *	<dir>/scratch-*.ext4	template of a container's disk			scratch.h
 *	<dir>/lock		flock'ed while open
 *
 * What survives kill -9 and power loss: an image that a pull has reported, with its names, whole;
 * and names given and pins set by hand. Rules that make it so:
 * - The worker syncs a layer's file before it says that it is done; then rename, then row.
 * - Rows are changed in memory, and a thread writes them to the file (db.h): a crash may lose the
 *   latest ones, never one in between. Who reports a change waits before, not on the loop, until it
 *   is in the file (db_written), and for an image or a name until it is on the disk (disk_sync).
 * - Deleting: row, then file. A row that comes back after a crash has no file then.
 * A crash leaves at most files without a row and rows without a file; the next open removes both
 * (and the images that need them), so that every image that can be seen is whole.
 */
#ifndef HUSK_IMAGE_STORE_STORE_H
#define HUSK_IMAGE_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct store;

struct store_options {
	struct loop *loop;   /* borrowed, must outlive the store */
	const char *dir;     /* <root>/images; made when missing, mode 0700 */
	char *const *pinned; /* names of images that are always pinned; NULL = none. Copied. */
	bool drop_blobs;     /* layer blobs are of no more use once they are unpacked */
	uint64_t reserve;    /* bytes of the disk that stay free; 0 = the default (space.h) */
};

/* Removes what a dead process left. -EBUSY: another process has it open. */
int store_open(const struct store_options *o, struct store **ret, struct err *err) must_check;
/* Ends the leases that are left; waits for the disk. NULL is fine. */
void store_close(struct store *s);

const char *store_dir(const struct store *s); /* absolute */
/* Path of a file in <dir>/tmp that does not exist yet. The caller frees; NULL: out of memory. */
char *store_tmp_path(struct store *s, const char *suffix);
/* A file in <dir>/tmp without a name, read and write, owned by the caller. */
int store_tmp_file(struct store *s, int *ret_fd, struct err *err) must_check;

#endif
