#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* The text of `fmt`, then `sep` and `tail`. Arguments may point into err->msg, so it is built
 * aside. */
printf_like(3, 0) static void set_text(struct err *err, int code, const char *fmt, va_list ap,
				       const char *sep, const char *tail)
{
	char text[sizeof(err->msg)];
	bool cut = vsnprintf(text, sizeof(text), fmt, ap) >= (int)sizeof(text);
	size_t n = strlen(text);

	if (snprintf(text + n, sizeof(text) - n, "%s%s", sep, tail) >= (int)(sizeof(text) - n))
		cut = true;
	if (cut)
		utf8_trim(text);
	memcpy(err->msg, text, strlen(text) + 1);
	err->code = code;
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	set_text(err, code, fmt, ap, "", "");
	va_end(ap);
	return code;
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	set_text(err, code, fmt, ap, ": ", strerror(-code));
	va_end(ap);
	return code;
}

int err_nomem(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory");
}

int err_wrap(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	/* What failed inside may have had no text to give. */
	set_text(err, code, fmt, ap, ": ", err->msg[0] ? err->msg : strerror(-code));
	va_end(ap);
	return code;
}

const char *err_text(const struct err *err)
{
	if (err->msg[0])
		return err->msg;
	return err->code ? strerror(-err->code) : "no error";
}
