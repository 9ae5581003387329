/* What a registry's 401 says ("WWW-Authenticate"), and which hosts are on this machine. Pure. */
#ifndef HUSK_IMAGE_REGISTRY_AUTH_H
#define HUSK_IMAGE_REGISTRY_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

#define AUTH_MAX_VALUE 2048u

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

struct auth_challenge {
	enum auth_scheme scheme;
	char realm[AUTH_MAX_VALUE + 1], service[AUTH_MAX_VALUE + 1], scope[AUTH_MAX_VALUE + 1];
};

/*
 * Parses one header value. A scheme that we do not know gives AUTH_NONE. Called for each header in
 * turn it keeps the stronger of them. -EPROTO: a Bearer challenge that cannot be understood (`c` is
 * unchanged).
 */
int auth_challenge_parse(const char *value, size_t len, struct auth_challenge *c) must_check;

/* "localhost", "x.localhost", 127/8, ::1, with or without a port and brackets. */
bool host_is_loopback(const char *host);
/* Where a numeric address is: what is neither of this machine nor of the link (where clouds have
 * their metadata) is elsewhere. Text that is no address counts as the link. */
enum address_kind { ADDRESS_ELSEWHERE, ADDRESS_LOOPBACK, ADDRESS_LINK };
enum address_kind address_kind(const char *ip);

#endif
