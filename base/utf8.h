/*
 * UTF-8 as RFC 3629 has it and protobuf's `string` asks for: no overlong forms, no surrogates,
 * nothing above U+10FFFF. Texts end with NUL and are never read beyond it. Leaf functions.
 */
#ifndef HUSK_BASE_UTF8_H
#define HUSK_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes (1 to 4) of the well-formed character at s, 0 if there is none. The NUL counts as one. */
size_t utf8_len(const char *s);
bool utf8_valid(const char *s);
/* Every byte that is no part of a well-formed character becomes '?'. In place. */
void utf8_repair(char *s);
/* Takes off what a cut left of the last character. In place. */
void utf8_trim(char *s);

#endif
