/*
 * Credentials for one registry, in memory: each form that Docker's config.json, its helpers and
 * CRI's AuthConfig know. Wiped before they are freed. Any thread.
 */
#ifndef HUSK_CLI_AUTH_SECRETS_H
#define HUSK_CLI_AUTH_SECRETS_H

#include <stdbool.h>

#include "base/compiler.h"
#include "proto/cri.pb-c.h"

/* Strings are owned, NULL = none. */
struct auth {
	char *username, *password;
	char *basic; /* base64("user:password"), instead of the two */
	char *identity_token, *registry_token;
};

void auth_fini(struct auth *a); /* wipes the secrets */
#define cleanup_auth cleanup_with(auth_fini)
bool auth_empty(const struct auth *a);
/* Lends the strings to a message. */
void auth_to_message(const struct auth *a, Cri__AuthConfig *m);

#endif
