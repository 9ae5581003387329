/* What commands print: tables whose columns fit, JSON, sizes and times, questions. One thread. */
#ifndef HUSK_CLI_OUT_H
#define HUSK_CLI_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/compiler.h"

#define TABLE_MAX_COLUMNS 8
#define SHORT_ID 12

/* Rows are kept until the end, because a column is as wide as its widest cell. */
struct table {
	size_t n_columns, n_cells, cap;
	char **cells; /* owned; NULL: out of memory */
	bool right[TABLE_MAX_COLUMNS];
	bool failed;
};

/* Headings separated by '|'; one with a '>' in front is flush right. */
void table_init(struct table *t, const char *headings);
/* The next cell; copied. */
void table_cell(struct table *t, const char *text);
void table_cellf(struct table *t, const char *fmt, ...) printf_like(2, 3);
/* Prints and frees. False: out of memory, which has been said. */
bool table_print(struct table *t) must_check;

/* Prints a value on one line, or (pretty) on several, and frees it. 0, or the exit
 * code 1, after saying why. */
int print_json(json_t *j, bool pretty);
/* strv as an array. */
json_t *json_strings(char *const *v, size_t n);

/* "sha256:0123456789abcd.." -> the 12 digits, or all of it when `whole`. */
const char *id_text(const char *id, bool whole, char buf[SHORT_ID + 1]);
/* "docker.io/library/busybox:latest" -> "busybox:latest", as people write it. */
const char *familiar_name(const char *name);
/* RFC 3339 in UTC; "" for 0. */
const char *time_text(int64_t ns, char buf[40]);
/* "3 minutes ago" since a time (ns since the epoch), "12.4 MB". */
const char *human_age(int64_t then_ns, char buf[32]);
const char *human_size(uint64_t bytes, char buf[32]);
/* ns since the epoch; 0: not understood, or nothing that a clock has shown. */
int64_t time_parse(const char *rfc3339);

/* Asks on the terminal; false also when nobody can answer. */
bool ask_yes(const char *question);
bool can_ask(void);

#endif
