/*
 * How private the place of a host or address is: of this machine, its link, a private network, or
 * public; and those that clouds keep their metadata (with credentials) at. Plain HTTP is the
 * default only for this machine, and a registry may not send us to a place more private than its
 * own. Pure; any thread.
 */
#ifndef HUSK_IMAGE_ADDRESS_H
#define HUSK_IMAGE_ADDRESS_H

#include <stdbool.h>

/* "localhost", "x.localhost", 127/8, ::1, with or without a port and brackets. */
bool host_is_loopback(const char *host);
/* From public to private. */
enum address_kind {
	ADDRESS_PUBLIC,
	ADDRESS_PRIVATE, /* RFC 1918, ULA, CGNAT, reserved */
	ADDRESS_LINK,
	ADDRESS_LOOPBACK,
	ADDRESS_METADATA,
};
/* Of a numeric address; of the more private one where IPv6 carries an IPv4 address (mapped, NAT64,
 * 6to4, Teredo, ...). Text that is no address counts as the worst. */
enum address_kind address_kind(const char *ip);
/* Of the host of a URL (without brackets) as far as it can be told without asking DNS: other names
 * are public. */
enum address_kind address_kind_of_host(const char *host);
/* May somebody at `from` send us to `to`? Never to metadata, and to a link only from one. */
bool address_may_lead(enum address_kind from, enum address_kind to);
/* "an address of ..." */
const char *address_kind_text(enum address_kind kind);

#endif
