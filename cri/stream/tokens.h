/*
 * The secrets in the URLs that huskd hands out: each opens one session, within a minute. Loop's
 * thread.
 */
#ifndef HUSK_CRI_STREAM_TOKENS_H
#define HUSK_CRI_STREAM_TOKENS_H

#include "base/compiler.h"
#include "base/loop.h"
#include "cri/stream/session.h"

#define TOKENS_MAX 1000u
#define TOKEN_LIFE_MS 60000
#define TOKEN_LEN 32u /* hexadecimal digits, of 16 random bytes */

struct tokens;

struct token {
	const char *kind; /* the first part of the path: "exec" */
	struct stream_want want;
	const struct stream_ops *ops;
	void *arg;
};

int tokens_new(struct loop *l, struct tokens **ret) must_check; /* -ENOMEM */
/* `closed` of those that are left is called. NULL is fine. */
void tokens_free(struct tokens *t);
/* `token` is copied, but for `kind`. When 0 is returned `closed` will be called, never inside.
 * -ENOBUFS: too many wait, -ENOMEM. */
int tokens_add(struct tokens *t, const struct token *token, char ret[TOKEN_LEN + 1]) must_check;
/* What this path stands for, NULL = nothing (any more). It stays until it is taken. */
struct token *tokens_find(const struct tokens *t, const char *path);
/* Ends the life of what tokens_find has just returned, without `closed`. */
void tokens_take(struct tokens *t, struct token *token);

#endif
