/*
 * Copies of an output stream, for clients that look on (attach): FIFOs that get every byte from now
 * on. A reader that is slow holds the stream back, one that goes is forgotten. Embedded in the
 * stream. Loop thread.
 */
#ifndef HUSK_SHIM_IO_TEE_H
#define HUSK_SHIM_IO_TEE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

#define TEES_MAX 16u /* of one stream */

struct tee;

struct tees {
	struct loop *loop;
	size_t most; /* bytes that one can be given at once */
	/* Nothing waits for a reader any more. The stream may be freed. */
	void (*flushed)(void *arg);
	void *arg;
	struct tee *first;
	unsigned n;
};

/* path: a FIFO with a reader. -ENOBUFS, -errno. */
int tees_add(struct tees *t, const char *path, struct err *err) must_check;
/* Not while tees_full(). What is not taken at once is kept. */
void tees_write(struct tees *t, const uint8_t *p, size_t n);
bool tees_full(const struct tees *t); /* a reader is waited for */
/* End of file for all of them; what was kept is dropped. */
void tees_end(struct tees *t);

#endif
