/*
 * The CRI log of a container: "<RFC3339Nano> <stdout|stderr> <P|F> <content>\n".
 * A line longer than CRILOG_LINE_MAX becomes P pieces and a last F; what stands without a newline
 * at the end of a stream becomes a P line; bytes are passed on unchanged, but for a CR before LF.
 * A disk that is full or broken loses lines, which are counted; it never stops the container.
 * Loop thread.
 */
#ifndef HUSK_SHIM_IO_CRILOG_H
#define HUSK_SHIM_IO_CRILOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define CRILOG_LINE_MAX 16384u /* content bytes of one line */

struct stat;
struct crilog; /* one file, shared by the streams of a process */

/* Opens `path` (absolute) for appending; makes it (0640) and its parent directories. */
int crilog_open(const char *path, struct crilog **ret, struct err *err) must_check;
/* Opens the path anew; on error the old file stays in use and none was made. */
int crilog_reopen(struct crilog *log, struct err *err) must_check;
const char *crilog_path(const struct crilog *log);
uint64_t crilog_lost(const struct crilog *log); /* bytes that could not be written */
void crilog_free(struct crilog *log);

/* One stream into the file. Zero `held` and `held_n` at the start. */
struct crilog_stream {
	struct crilog *log; /* borrowed */
	bool is_stderr;
	uint8_t *held; /* CRILOG_LINE_MAX bytes while a line is incomplete, else NULL */
	size_t held_n;
};

/* Writing to such a file does not wait for a reader, as it would for a FIFO or a terminal. */
bool crilog_never_waits(const struct stat *st);
/* `data` was read at `real_ns` (CLOCK_REALTIME). -errno: lines were lost; the next ones may not
 * be. */
int crilog_write(struct crilog_stream *s, const uint8_t *data, size_t n, int64_t real_ns);
/* End of the stream: writes what is held, frees it. */
void crilog_eof(struct crilog_stream *s, int64_t real_ns);

#endif
