/* UTF-8 as protobuf's `string` asks for it. Leaf functions. */
#ifndef HUSK_CRI_UTF8_H
#define HUSK_CRI_UTF8_H

#include <stdbool.h>

/* Well-formed: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool utf8_valid(const char *s);
/* Every byte that is no part of a well-formed sequence becomes '?'. In place. */
void utf8_repair(char *s);

#endif
