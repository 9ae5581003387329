/*
 * What is kept on disk of each attachment of a pod to its network, so that DEL comes with the same
 * arguments, configuration and result whatever happened in between:
 *
 *	DIR/ID.json	the request: written, and safe from a loss of power, before anything is
 *			made
 *	DIR/ID.result	what the plug-ins have answered so far; not safe from a loss of power,
 *			since what it speaks of is not either
 *	DIR/ID.lock	locked (flock) by whoever works on the attachment: huskd, and each plug-in
 *			with its children, which keep their descriptor until they end. So the next
 *			huskd can wait for plug-ins that a dead one left
 */
#ifndef HUSK_CRI_NET_RECORD_H
#define HUSK_CRI_NET_RECORD_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define NET_RECORD_MAX (2 * MIB) /* each file */
#define NET_ID_MAX 128u

struct record {
	char *id, *ifname, *netns, *args;
	json_t *list;	/* the network's configuration */
	json_t *caps;	/* values by capability; an object */
	json_t *result; /* NULL = no plug-in has answered */
	bool complete;	/* all have */
};

void record_fini(struct record *rec); /* fine on a zeroed one */
/* An id becomes a file's name and a plug-in's argument. */
bool record_id_valid(const char *id);

/* The text of ID.json; the caller's. */
int record_text(const struct record *rec, char **ret, struct err *err) must_check;
/* Writes ID.json. Waits for the disk: not on the loop. */
int record_write(const char *dir, const char *id, const char *text, struct err *err) must_check;
int record_write_result(const char *dir, const struct record *rec, struct err *err) must_check;
/* A result that is damaged is as none. */
int record_read(const char *dir, const char *id, struct record *ret, struct err *err) must_check;
/* All three files; the request last. Missing is fine. */
int record_remove(const char *dir, const char *id, struct err *err) must_check;
/* Calls fn for the id of each ID.json, and removes what other files have no request. */
int record_scan(const char *dir, void (*fn)(void *arg, const char *id), void *arg,
		struct err *err) must_check;

/* Takes the lock and returns its descriptor. Waits for at most wait_ms, or until *hurry; then kills
 * the processes that still have it (a plug-in's) and waits a second more. Not on the loop.
 * -EBUSY. */
int record_lock(const char *dir, const char *id, uint64_t wait_ms, const atomic_bool *hurry,
		int *ret_fd, struct err *err) must_check;

#endif
