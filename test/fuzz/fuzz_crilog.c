/* What a container writes, into its CRI log: whoever reads that by lines finds lines of the form
 * that he expects. First byte: how the rest is cut; each piece begins with a byte whose lowest bit
 * names the stream. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/crilog.h"
#include "test/fuzz/fuzz.h"

static uint8_t text[1 << 20];

/* "2026-11-28T20:00:00.000000000Z stdout F content\n": the stamp has one width. The end of it. */
static const uint8_t *check_line(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *newline = memchr(p, '\n', (size_t)(end - p));
	const uint8_t *blank = newline ? memchr(p, ' ', (size_t)(newline - p)) : NULL;

	fuzz_assert(blank && blank[-1] == 'Z' && newline - blank >= 10);
	fuzz_assert(!memcmp(blank, " stdout ", 8) || !memcmp(blank, " stderr ", 8));
	fuzz_assert((blank[8] == 'P' || blank[8] == 'F') && blank[9] == ' ');
	fuzz_assert(newline - (blank + 10) <= (ptrdiff_t)CRILOG_LINE_MAX);
	return newline + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct crilog_stream s[2] = { { 0 }, { .is_stderr = true } };
	int fd = memfd_create("log", MFD_CLOEXEC);
	size_t piece, n, newlines = 0, lines = 0;
	struct crilog *log = NULL;
	char path[40];
	ssize_t got;

	if (size < 1 || size > 1 << 16 || fd < 0) {
		fd_close(&fd);
		return 0;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fuzz_assert(crilog_open(path, &log, NULL) == 0);
	s[0].log = s[1].log = log;
	piece = 1 + 64u * data[0];
	data++;
	size--;
	for (; size > 1; data += n, size -= n) {
		n = MIN_OF(piece + 1, size);
		fuzz_assert(crilog_write(&s[data[0] & 1], data + 1, n - 1, 1795896000000000000) ==
			    0);
		for (size_t i = 1; i < n; i++)
			newlines += data[i] == '\n';
	}
	crilog_eof(&s[0], 0);
	crilog_eof(&s[1], 0);
	fuzz_assert(!s[0].held && !s[1].held && crilog_lost(log) == 0);
	got = pread(fd, text, sizeof(text), 0);
	fuzz_assert(got >= 0 && got < (ssize_t)sizeof(text));
	for (const uint8_t *p = text; p < text + got; lines++)
		p = check_line(p, text + got);
	fuzz_assert(lines >= newlines);
	crilog_free(log);
	fd_close(&fd);
	return 0;
}
