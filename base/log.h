/*
 * The log: one line a record to standard error (or a descriptor), as text or as JSON.
 * Library code logs at debug only; the handler at the top logs an error once, with its ids.
 * Any thread; a line is one write().
 *
 *	log_info("pod ready", "pod", id, "backend", "kvm");       pairs of strings, key then value
 *	log_error("start failed", "container", id, "err", err_text(&e));
 */
#ifndef HUSK_BASE_LOG_H
#define HUSK_BASE_LOG_H

#include <stdbool.h>

#include "base/compiler.h"

#define LOG_CONTEXT_PAIRS 2u
#define LOG_KEY_MAX 15u
#define LOG_VALUE_MAX 128u

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Before other threads start. fd is borrowed. `program` must stay valid. */
void log_init(const char *program, int fd, enum log_level min, bool json);
/* A pair that every record of this process carries from now on, in front of its own, e.g. the pod.
 * A key that is there gets the new value; NULL removes it. Both are copied: at most
 * LOG_CONTEXT_PAIRS keys of LOG_KEY_MAX bytes, values are cut at LOG_VALUE_MAX. As log_init: before
 * other threads log. */
void log_set_context(const char *key, const char *value);
int log_level_parse(const char *s, enum log_level *ret) must_check; /* -EINVAL */
const char *log_level_name(enum log_level l);
bool log_on(enum log_level l);
/* Pairs end with NULL. A NULL value prints as "". */
void log_kv(enum log_level l, const char *msg, ...) __attribute__((sentinel));

#define log_debug(...) log_kv(LOG_DEBUG, __VA_ARGS__, (char *)NULL)
#define log_info(...) log_kv(LOG_INFO, __VA_ARGS__, (char *)NULL)
#define log_warn(...) log_kv(LOG_WARN, __VA_ARGS__, (char *)NULL)
#define log_error(...) log_kv(LOG_ERROR, __VA_ARGS__, (char *)NULL)

#endif
