/*
 * The one error convention of the tree.
 *
 * A function that can fail returns 0 or -errno. At module borders its last parameter is a
 * `struct err *` owned by the caller (NULL: the caller wants no text). Programs branch on the
 * number, people read the text. Success never touches the object; failure never touches outputs.
 * Texts grow from the inside out: "stop pod 4f2a: connect /run/husk/x.sock: Connection refused".
 */
#ifndef HUSK_BASE_ERR_H
#define HUSK_BASE_ERR_H

#include "base/compiler.h"

struct err {
	int code; /* -errno of the last err_set, 0 = nothing happened */
	char msg[500];
};

/* Sets the text and returns `code`, a negative errno. Cuts at the end of `msg`. */
int err_set(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);

/* As err_set, and appends ": " and strerror(-code). */
int err_errno(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);

/* Sets "out of memory", the only wording for it, and returns -ENOMEM. */
int err_nomem(struct err *err);

/* Puts "<fmt>: " in front of the text that is there; returns `code`. */
int err_wrap(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);

/* The text, or strerror of the code when no text was set. Never NULL. Valid as long as `err`. */
const char *err_text(const struct err *err);

#endif
