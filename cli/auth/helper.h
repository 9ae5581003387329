/*
 * Programs that keep credentials: docker-credential-NAME get|store|erase, a line or an object of
 * JSON on their standard input, an answer on their standard output. One thread; waits for them.
 */
#ifndef HUSK_CLI_AUTH_HELPER_H
#define HUSK_CLI_AUTH_HELPER_H

#include "base/compiler.h"
#include "base/err.h"
#include "cli/auth/secrets.h"

#define HELPER_MAX_ANSWER (64 * KIB)

/* -ENOENT: it has none for this server. Others: it is not there, or it failed. */
int helper_get(const char *name, const char *key, struct auth *ret, struct err *err) must_check;
int helper_store(const char *name, const char *key, const struct auth *a,
		 struct err *err) must_check;
int helper_erase(const char *name, const char *key, struct err *err) must_check;

#endif
