/*
 * A file system of its own, on a loop device, that can be made to hang: whoever writes to a file of
 * it waits, as with a disk of the host that does not answer. A child thaws and unmounts it when it
 * is freed, or when the test ends in whatever way. The child keeps all that was open when it was
 * made: so it is made first. One at a time; needs root.
 */
#ifndef HUSK_TEST_UNIT_AGENT_HUNG_DISK_H
#define HUSK_TEST_UNIT_AGENT_HUNG_DISK_H

#include <stdbool.h>

/* Mounted at dir/hung, which is made. 0, or -errno: not to be had here. */
int hung_disk_make(const char *dir);
void hung_disk_hang(bool on); /* the same twice is fine; aborts otherwise */
void hung_disk_free(void);    /* nothing when there is none */

#endif
