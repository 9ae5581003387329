/*
 * Progress of a pull on standard error: one bar per layer on a terminal, plain lines elsewhere.
 * One thread.
 */
#ifndef HUSK_CLI_PROGRESS_H
#define HUSK_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/husk.pb-c.h"

struct progress {
	bool terminal;
	unsigned columns;
	size_t drawn;	   /* lines on the terminal that the next drawing replaces */
	uint64_t last_ns;  /* time of the last drawing */
	uint8_t said[128]; /* not a terminal: state last printed, by layer, + 1 */
};

void progress_init(struct progress *p);
/* Draws at most every 50 ms, and always when `last`. */
void progress_show(struct progress *p, const Husk__V1__PullProgress *msg, bool last);

#endif
