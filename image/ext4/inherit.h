/*
 * Adds the directories of a layer's disk to a tree, as its tar would: what is named, what is not,
 * what hides something of older layers. With all disks of an image in it, lowest first, the tree
 * knows which attributes each directory should have (tree_only_inherited). Files come into it only
 * where they hide a directory. One thread.
 */
#ifndef HUSK_IMAGE_EXT4_INHERIT_H
#define HUSK_IMAGE_EXT4_INHERIT_H

#include "base/compiler.h"
#include "base/err.h"

struct reader;
struct tree;

/* The tree's current layer gets them. -EBADMSG: damaged; -EFBIG: over a limit of the tree. */
int inherit_disk(struct tree *t, struct reader *rd, struct err *err) must_check;

#endif
