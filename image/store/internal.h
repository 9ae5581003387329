/*
 * The store's inside: shared by the files of store/ (and their unit tests), by nobody else. Loop
 * thread only; the threads of disk.c and db.c are given what they work on.
 */
#ifndef HUSK_IMAGE_STORE_INTERNAL_H
#define HUSK_IMAGE_STORE_INTERNAL_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "image/store/store.h"

struct ingest;
struct ingest_wait;
struct lease;
struct sql_tx;
struct sqlfile;
struct work;

struct store {
	struct loop *loop;
	char *dir, *layers_dir, *tmp_dir, *ingest_dir, *blobs_dir;
	char *scratch; /* path of the template */
	int lock_fd;
	sqlite3 *db;		/* in memory; db.h */
	struct sqlfile *file;	/* the same on the disk */
	struct sql_tx *tx;	/* the transaction in hand */
	struct work *disk;	/* for files */
	struct ingest *ingests; /* blobs coming in */
	struct ingest_wait *ingest_waits;
	struct lease *leases;
	char **pinned; /* names in full; never NULL */
	bool drop_blobs;
	uint64_t reserve;     /* bytes that stay free; 0 = by the size of the file system */
	bool layers_unsynced; /* the directory */
	bool room_wanted;     /* see gc_make_room */
	uint64_t tmp_serial;
};

int store_sync_dir(const char *path, struct err *err) must_check;
/* Calls fn for each name in a directory of the store, until it fails. */
int store_each_name(struct store *s, const char *dir,
		    int (*fn)(struct store *s, const char *name, struct err *err),
		    struct err *err) must_check;

#endif
