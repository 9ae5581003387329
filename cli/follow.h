/*
 * Reads a CRI log file and writes its content to standard output and standard error, waiting for
 * more by inotify. One thread.
 */
#ifndef HUSK_CLI_FOLLOW_H
#define HUSK_CLI_FOLLOW_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

/* One line of a CRI log is at most this long: 16 KiB of content and what stands before it. */
#define FOLLOW_LINE_MAX (64 * KIB)

struct follow {
	char *path;  /* owned */
	int fd;	     /* the log */
	int inotify; /* readable when there may be news */
	struct buf in;
	struct buf out[2]; /* standard output, standard error */
};

/* A log that is not there yet is an error (-ENOENT). `watch` = follow_fd will be used. */
int follow_open(struct follow *f, const char *path, bool watch, struct err *err) must_check;
void follow_close(struct follow *f);
/* Descriptor for poll(); drain it with follow_read. */
int follow_fd(const struct follow *f);
/* Writes all that the file has now. A file that was rotated away is read to its end, then the new
 * one at the path is opened. */
int follow_read(struct follow *f, struct err *err) must_check;

/* Parses one line without its newline: "TIME STREAM TAGS CONTENT". -EBADMSG if it is none. */
struct follow_line {
	bool is_stderr;
	bool partial;
	const char *content;
	size_t len;
};
int follow_parse(const char *line, size_t n, struct follow_line *ret) must_check;

#endif
