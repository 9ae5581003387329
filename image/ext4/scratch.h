/* A container's scratch disk: an empty ext4, made block by block without the writer. Pure but for
 * the file. */
#ifndef HUSK_IMAGE_EXT4_SCRATCH_H
#define HUSK_IMAGE_EXT4_SCRATCH_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/*
 * An empty file system of `size` bytes to be written to later (a container's scratch disk): one
 * root directory, no journal; group metadata is where mke2fs would put it, and all of it sparse.
 */
int ext4_make_scratch(int fd, uint64_t size, struct err *err) must_check;

#endif
