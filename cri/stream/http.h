/*
 * The head of one HTTP/1.1 request, as far as an upgrade needs it: method, target, header fields.
 * Read strictly, since nobody but programs writes them: lines end with CRLF, a field is one line, a
 * body is none. Bytes of a hostile client. Pure functions, no I/O.
 */
#ifndef HUSK_CRI_STREAM_HTTP_H
#define HUSK_CRI_STREAM_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

#define HTTP_HEAD_MAX (16 * KIB) /* from the method to the empty line */
#define HTTP_FIELDS_MAX 64
#define HTTP_TARGET_MAX 1024

struct http_field {
	const char *name, *value; /* value without blanks around it */
};

struct http_head {
	char *text; /* owned; what the others point into */
	const char *method, *target;
	struct http_field fields[HTTP_FIELDS_MAX];
	size_t n_fields;
};

/* Length of the head at the start of these bytes, with *ret filled, to be freed by http_head_fini;
 * 0 = its end has not come. -EPROTO: it is none, -EMSGSIZE: too long, -EOPNOTSUPP: not HTTP/1.1,
 * -ENOMEM. */
ssize_t http_head_parse(const void *data, size_t n, struct http_head *ret) must_check;
void http_head_fini(struct http_head *h);

/* The value of the first field of this name, NULL = there is none. Case does not count. */
const char *http_value(const struct http_head *h, const char *name);
/* Of the comma-separated words of all fields of this name: copies the one at *pos and moves on.
 * False at the end. Words that do not fit are left out. `pos` begins at 0. */
bool http_next_word(const struct http_head *h, const char *name, size_t *pos, char *word,
		    size_t size);
/* One of these words is this one; case does not count. */
bool http_has_word(const struct http_head *h, const char *name, const char *word);
/* It announces a body, or something after the head that is not of the upgraded protocol. */
bool http_has_body(const struct http_head *h);

#endif
