/*
 * Credentials for registries, kept where Docker keeps them: $DOCKER_CONFIG/config.json (default
 * ~/.docker/config.json), or with the helper programs that it names (docker-credential-NAME). Other
 * keys of the file stay as they are. One thread.
 */
#ifndef HUSK_CLI_AUTH_AUTH_H
#define HUSK_CLI_AUTH_AUTH_H

#include "base/compiler.h"
#include "base/err.h"
#include "cli/auth/secrets.h"

#define AUTH_MAX_FILE (4 * MIB)

/* The registry of an image, or of what was given to `login`: "docker.io", "127.0.0.1:5000". The
 * caller frees; NULL: out of memory. */
char *auth_server_of_image(const char *image) must_check;
char *auth_server_of_argument(const char *arg) must_check;

/* No credentials: 0 and an empty *ret. */
int auth_find(const char *server, struct auth *ret, struct err *err) must_check;
int auth_for_image(const char *image, struct auth *ret, struct err *err) must_check;
/* username and password, or username and identity_token. *ret_where: file or helper, for people;
 * the caller frees. */
int auth_store(const char *server, const struct auth *a, char **ret_where,
	       struct err *err) must_check;
/* -ENOENT: there were none. */
int auth_erase(const char *server, struct err *err) must_check;

#endif
