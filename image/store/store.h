/*
 * Inside of the store, for pull.c, scratch.c and tests; huskd sees image.h only.
 *
 * <dir>/images.db	SQLite: layers, blobs, images, names, holds
 * <dir>/layers/sha256/<hex of diff id>.ext4
 * <dir>/blobs/, ingest/	see blobs.h
 * <dir>/tmp/		layers being made; emptied at each start
 * <dir>/scratch-*.ext4	template of a container's disk
 * <dir>/lock		flock'ed while open
 *
 * What survives kill -9 and power loss: an image that a pull has reported, with its names, whole;
 * and names given and pins set by hand. Rules that make it so:
 * - The worker syncs a layer's file before it says that it is done; then rename, then row.
 * - Rows are written without waiting for the disk (SQLite's synchronous=NORMAL: none is lost but by
 *   a loss of power, and then the last ones, never one in the midst). Only the transaction that
 *   makes an image visible waits, and with it all before; the directory of layers is synced just
 *   before it. So the loop waits for the disk twice in a pull.
 * - Deleting: row, then file. A row that comes back after power was lost has no file then.
 * What a crash leaves is a file without a row, or a row without a file; the next open removes both
 * (with the images that cannot do without), so that what is to be seen is whole.
 */
#ifndef HUSK_IMAGE_STORE_STORE_H
#define HUSK_IMAGE_STORE_STORE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "image/digest.h"
#include "image/image.h"
#include "image/job/fetcher.h"
#include "image/job/proc.h"
#include "image/reference.h"

struct disk;
struct ingest;
struct lease;
struct manifest;

struct image_store {
	struct loop *loop;
	char *dir, *layers_dir, *tmp_dir, *ingest_dir, *blobs_dir, *arch, *scratch;
	int lock_fd;
	sqlite3 *db;
	unsigned max_layers_at_once, max_layers_in_all;
	struct fetcher_config fetcher_config;
	struct image_pull *pulls; /* running */
	struct ingest *ingests;	  /* blobs coming in */
	struct lease *leases;
	struct image_verify *verifies; /* running */
	struct noting *noting;	       /* layers that are read for the first time */
	struct disk *disk;
	bool layers_unsynced; /* the directory */
	bool room_wanted;     /* see store_make_room */
	struct ev_timer room_timer;
	char **pinned; /* names in full; never NULL */
	bool drop_blobs;
	struct procs procs;
	uint64_t tmp_serial;
};

/* What a pull (a load) has found and verified. */
struct image_commit {
	const char *id;
	const void *config;
	size_t config_len;
	const struct reference *ref; /* NULL: the image gets no name */
	const char *digest;	     /* of what the reference named: index or manifest */
	char *const *diff_ids;	     /* one for each layer */
	char *const *disks; /* ids of layer disks, in place of diff_ids where layers are merged */
	/* The image's manifest; NULL = not known. */
	const struct manifest *manifest;
	const char *manifest_digest;
	size_t manifest_size;
};

/* ---- layer disks: <dir>/layers/sha256/<hex>.ext4, by diff id (or merged id) ---- */

/* Of a file in <dir>/tmp that does not exist yet. The caller frees; NULL: no memory. */
char *store_tmp_path(struct image_store *s, const char *suffix);
char *store_layer_path(const struct image_store *s, const char *diff_id);
/* 1 when the layer is there and not known to be damaged, 0 when not. */
int store_has_layer(struct image_store *s, const char *diff_id, struct err *err) must_check;
/* A synced file at `tmp` becomes the layer, also in place of a damaged one. On failure the file is
 * still at `tmp` or gone. */
int store_add_layer(struct image_store *s, const char *diff_id, const char *tmp,
		    struct err *err) must_check;

/* ---- images ---- */

/* All layers must be there. The image is visible when this returns 0. */
int store_add_image(struct image_store *s, const struct image_commit *c,
		    struct err *err) must_check;
/* The id that `ref` means, and (ret_name, may be NULL) the name in full when it is one, else "".
 * -ENOENT: nothing has that name; -EINVAL: it cannot be a name of anything, or fits several ids. */
int store_resolve(struct image_store *s, const char *ref, char id[DIGEST_LEN + 1],
		  char ret_name[REFERENCE_MAX + 1], struct err *err) must_check;
/* In a transaction; collects nothing. Held: it stays for its holders. */
int store_remove_image(struct image_store *s, const char *id, struct err *err) must_check;
/* Is one of the names (in full) among those that the options pin? */
bool store_is_pinned(const struct image_store *s, char *const *names);

/* ---- what protects from collection (gc.c) ---- */

/*
 * A layer or blob stays as long as an image refers to it (and holds keep images), or a lease names
 * it: every pull, load, push, save, verify takes one for what it works with. Leases live in this
 * process only, so those of a dead one are gone.
 *
 * What comes in and no image has referred to yet is "pending" (its row says since when): it stays
 * for STORE_PENDING_S, so that a pull that broke, or whose owner died, is gone on with.
 */
#define STORE_PENDING_S (24 * 3600)

int lease_new(struct image_store *s, struct lease **ret, struct err *err) must_check;
/* A diff id, merged id, or blob digest; there or not. Twice is fine. */
int lease_add(struct lease *l, const char *digest, struct err *err) must_check;
/* Ends it and collects. `forget`: what it names is not worth going on with (the data are bad, the
 * disk is full). NULL is fine. */
void lease_end(struct lease *l, bool forget);
bool store_leased(const struct image_store *s, const char *digest);
/* Deletes layers and blobs that nothing protects. */
int store_collect(struct image_store *s, struct err *err) must_check;
/* The disk is full: forgets all that is only kept for later pulls, soon if not now. */
void store_make_room(struct image_store *s);
void store_make_room_at_end(struct image_store *s);
/* Takes the file out of sight and removes it off the loop. Its row must be gone. */
void store_discard(struct image_store *s, const char *path);
/* The time before which pending things are too old, s. */
int64_t store_pending_limit(void);
/* Layers that came are read once, when nothing else is to do, so that later readings can be
 * compared. (job/verify.c) */
void store_note_later(struct image_store *s);
void verifies_close(struct image_store *s);
/* Ends all pulls and reaps all children. (pull.c) */
void pulls_close(struct image_store *s);
/* The directory of layers, when something came into it. */
int store_sync_layers(struct image_store *s, struct err *err) must_check;
int store_sync_dir(const char *path, struct err *err) must_check;
/* Calls fn for each name in a directory, until it fails. */
int store_each_name(const char *dir, int (*fn)(struct image_store *, const char *, struct err *),
		    struct image_store *s, struct err *err) must_check;

/* ---- database (db.c) ---- */

/* A statement with text arguments; NULL ends them. */
int db_prepare(struct image_store *s, const char *sql, sqlite3_stmt **ret, struct err *err, ...)
	__attribute__((sentinel)) must_check;
int db_error(struct image_store *s, struct err *err);
/* Opens the database and brings it to the shape of this version. */
int store_db_open(struct image_store *s, struct err *err) must_check;
int db_begin(struct image_store *s, struct err *err) must_check;
/* Transactions from here on wait for the disk, or not (which is how it starts). */
void db_durable(struct image_store *s, bool on);
/* Commits when r >= 0, else undoes; returns r, or the failure of the commit. */
int db_end(struct image_store *s, int r, struct err *err) must_check;
/* All first columns of a query, as a string vector that the caller frees. */
int db_column(struct image_store *s, sqlite3_stmt *st, char ***ret, struct err *err) must_check;
void stmt_freep(sqlite3_stmt **s);
#define cleanup_stmt cleanup_with(stmt_freep)
/* Runs a statement that gives no rows. */
#define db_run(s, err, sql, ...)                                                                   \
	({                                                                                         \
		cleanup_stmt sqlite3_stmt *run_st = NULL;                                          \
		int run_r = db_prepare(s, sql, &run_st, err, __VA_ARGS__);                         \
		if (run_r >= 0 && sqlite3_step(run_st) != SQLITE_DONE)                             \
			run_r = db_error(s, err);                                                  \
		run_r;                                                                             \
	})

int scratch_prepare(struct image_store *s, struct err *err) must_check;

#endif
