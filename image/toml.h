/*
 * A reader of TOML 1.0: text in, a tree out. Left out, and refused with a message: dates and times.
 * (Debian 12 has no C library for it, and only hosts.toml needs it.) Tables keep the order of the
 * file. Pure; any thread.
 */
#ifndef HUSK_IMAGE_TOML_H
#define HUSK_IMAGE_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define TOML_MAX_DEPTH 16u
#define TOML_MAX_VALUES 20000u

enum toml_kind { TOML_TABLE, TOML_ARRAY, TOML_STRING, TOML_INTEGER, TOML_FLOAT, TOML_BOOL };

struct toml {
	enum toml_kind kind;
	unsigned line;
	char *key;		   /* in a table; NULL elsewhere */
	struct toml *next;	   /* the next one of the same table or array */
	struct toml *first, *last; /* of a table or an array */
	char *text;		   /* TOML_STRING; never with a NUL inside */
	union {
		int64_t integer;
		double number;
		bool truth;
	};
	/* how a table came to be: what may still be added to it */
	enum { TOML_IMPLICIT, TOML_HEADER, TOML_DOTTED, TOML_CLOSED } origin;
};

/* `name` is for errors ("NAME:LINE: ..."). -EINVAL, -EFBIG, -ENOMEM. */
int toml_parse(const char *text, size_t len, const char *name, struct toml **ret,
	       struct err *err) must_check;
void toml_free(struct toml *t); /* NULL is fine */
void toml_freep(struct toml **t);
#define cleanup_toml cleanup_with(toml_freep)
/* The member `key` of a table; NULL when there is none. */
const struct toml *toml_get(const struct toml *table, const char *key);

#endif
