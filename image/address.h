/*
 * Which hosts and addresses are on this machine, on its link, or elsewhere. Plain HTTP is the
 * default only for the first, and no redirect leads to the first two. Pure; any thread.
 */
#ifndef HUSK_IMAGE_ADDRESS_H
#define HUSK_IMAGE_ADDRESS_H

#include <stdbool.h>

/* "localhost", "x.localhost", 127/8, ::1, with or without a port and brackets. */
bool host_is_loopback(const char *host);
/* Where a numeric address is: what is neither of this machine nor of the link (where clouds have
 * their metadata) is elsewhere. Text that is no address counts as the link. */
enum address_kind { ADDRESS_ELSEWHERE, ADDRESS_LOOPBACK, ADDRESS_LINK };
enum address_kind address_kind(const char *ip);

#endif
