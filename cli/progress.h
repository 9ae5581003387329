/*
 * Progress of transfers, one entry a layer or blob: bars on a terminal and plain lines elsewhere,
 * on standard error; or lines of JSON on standard output. One thread.
 */
#ifndef HUSK_CLI_PROGRESS_H
#define HUSK_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "proto/husk.pb-c.h"

#define PROGRESS_MAX_ITEMS 132 /* layers of an image, configuration, manifest */

enum progress_kind {
	PROGRESS_PEOPLE, /* bars or lines */
	PROGRESS_JSON,
	PROGRESS_NONE,
};

struct progress_item {
	const char *digest;
	uint64_t done, size; /* bytes */
	const char *state;   /* a literal */
	bool begun, over;
};

struct progress {
	enum progress_kind kind;
	bool terminal;
	unsigned columns;
	size_t drawn;	  /* lines on the terminal that the next drawing replaces */
	uint64_t last_ns; /* time of the last drawing */
	const char *said[PROGRESS_MAX_ITEMS]; /* state last printed, by item */
};

void progress_init(struct progress *p, enum progress_kind kind);
/* Draws at most every 50 ms, and always when `last`. */
void progress_show(struct progress *p, const struct progress_item *items, size_t n, bool last);
/* Of a pull or load, of a push. */
void progress_layers(struct progress *p, Husk__LayerProgress *const *layers, size_t n, bool last);
void progress_blobs(struct progress *p, Husk__BlobProgress *const *blobs, size_t n, bool last);
/* One line for bytes without parts: "saving  12 MB of 80 MB". */
void progress_bytes(struct progress *p, const char *what, uint64_t done, uint64_t total, bool last);
/* A line that the next one replaces; on a terminal only. */
void progress_line(struct progress *p, const char *fmt, ...) printf_like(2, 3);
void progress_clear(struct progress *p);
/* What is drawn stays; the next progress begins below. */
void progress_end(struct progress *p);

#endif
