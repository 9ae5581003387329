#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Unicode, table 3-7: the second byte's range depends on the first. */
size_t utf8_len(const char *s)
{
	const uint8_t *p = (const uint8_t *)s;
	uint8_t low = 0x80, high = 0xbf;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	return n;
}

bool utf8_valid(const char *s)
{
	size_t n = 1;

	for (; *s && n > 0; s += n)
		n = utf8_len(s);
	return n > 0;
}

void utf8_repair(char *s)
{
	size_t n;

	for (; *s; s += n ? n : 1) {
		n = utf8_len(s);
		if (n == 0)
			*s = '?';
	}
}

void utf8_trim(char *s)
{
	size_t n = strlen(s);

	/* A character has three bytes behind its first at most. */
	for (size_t back = 1; back <= 3 && back <= n; back++) {
		uint8_t c = (uint8_t)s[n - back];
		size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

		if (c >= 0x80 && c < 0xc0)
			continue;
		if (need > back)
			s[n - back] = '\0';
		return;
	}
}
