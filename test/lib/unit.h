/* What every unit test includes first: cmocka and its prerequisites, and a few checks of our own.
 */
#ifndef HUSK_TEST_LIB_UNIT_H
#define HUSK_TEST_LIB_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The text contains `part`. */
#define assert_text(text, part)                                                                    \
	do {                                                                                       \
		const char *text_ = (text), *part_ = (part);                                       \
		if (!strstr(text_, part_))                                                         \
			fail_msg("\"%s\" does not contain \"%s\"", text_, part_);                  \
	} while (0)

/* Success, with the text of the error object otherwise. */
#define assert_ok(expr, errp)                                                                      \
	do {                                                                                       \
		int r_ = (expr);                                                                   \
		if (r_ < 0)                                                                        \
			fail_msg("%s: %d: %s", #expr, r_, err_text(errp));                         \
	} while (0)

#endif
