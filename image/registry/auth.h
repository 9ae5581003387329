/* What a registry's 401 says ("WWW-Authenticate"), and what its token service answers. Pure. */
#ifndef HUSK_IMAGE_REGISTRY_AUTH_H
#define HUSK_IMAGE_REGISTRY_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/*
 * The answer of a token service: {"token": ".."} or {"access_token": ".."}, and how long it lives.
 * *ret (the caller frees and wipes) can be a part of a header. *ret_s: seconds, between 1 and
 * AUTH_MAX_LIFE_S, less a little so that none ends during a request. -EPROTO; -ENOMEM.
 */
#define AUTH_MAX_LIFE_S (24u * 3600)
int auth_token_parse(const void *data, size_t len, char **ret, uint64_t *ret_s) must_check;

#endif
