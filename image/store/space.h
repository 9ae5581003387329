/*
 * The part of the file system that images may not take. The store shares it with containers' disks,
 * huskd's databases and often the host: those fail one by one when an image fills it. Inside of
 * image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_SPACE_H
#define HUSK_IMAGE_STORE_SPACE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/util.h"

/* The reserve, unless the options say otherwise: a part of the file system, but not less than ..,
 * nor more than ..; and of a small one, not more than a tenth. */
#define SPACE_PART 20u
#define SPACE_LEAST (1 * GIB)
#define SPACE_MOST (10 * GIB)
#define SPACE_PART_OF_SMALL 10u

struct store;

/* -ENOSPC: with `need` bytes more, the reserve would not be free any more. What cannot be found out
 * is no reason to refuse. */
int space_check(struct store *s, uint64_t need, struct err *err) must_check;
/* -ENOSPC, with the text for people, whatever is free now: it was too little a moment ago. */
int space_refuse(const struct store *s, uint64_t need, struct err *err) must_check;
/* Bytes that stay free; 0: not known. */
uint64_t space_reserve(const struct store *s);
/* Bytes that a file has on its disk; 0 also when it cannot be looked at. */
uint64_t space_of_fd(int fd);
uint64_t space_of_path(const char *path);
/* Of a file system of `total` bytes. */
uint64_t space_reserve_of(uint64_t total);

#endif
