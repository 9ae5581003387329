/*
 * Names of Linux capabilities, as OCI ("CAP_NET_ADMIN") and CRI ("NET_ADMIN") write them, and their
 * numbers in the kernel. Pure functions.
 */
#ifndef HUSK_BASE_CAPNAME_H
#define HUSK_BASE_CAPNAME_H

#include <stdint.h>

#define CAPNAME_LAST 40u /* CAP_CHECKPOINT_RESTORE, the last of Linux 6.12 */
#define CAPNAME_ALL ((UINT64_C(2) << CAPNAME_LAST) - 1) /* the bits of all of them */

/* "CAP_CHOWN" for 0, and so on. NULL beyond CAPNAME_LAST. */
const char *capname(unsigned cap);
/* The number, or -EINVAL. NULL is no name. */
int capname_find(const char *name);	  /* exactly as capname gives it */
int capname_find_loose(const char *name); /* in any case, with or without "CAP_" */

#endif
