#include <stddef.h>
#include <stdint.h>

#include "cri/utf8.h"

/* Length of the well-formed sequence at p (never reads past a NUL), 0 = none. Unicode, table 3-7.
 */
static size_t sequence(const uint8_t *p)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		n = 3;
		if (p[0] == 0xe0)
			low = 0xa0;
		if (p[0] == 0xed)
			high = 0x9f;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		if (p[0] == 0xf0)
			low = 0x90;
		if (p[0] == 0xf4)
			high = 0x8f;
	} else {
		return 0;
	}
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return n;
}

bool utf8_valid(const char *s)
{
	const uint8_t *p = (const uint8_t *)s;

	while (*p) {
		size_t n = sequence(p);
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

void utf8_repair(char *s)
{
	uint8_t *p = (uint8_t *)s;

	while (*p) {
		size_t n = sequence(p);
		if (n == 0)
			*p = '?';
		p += n ? n : 1;
	}
}
