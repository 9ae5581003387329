/*
 * The log: one line a record to standard error (or a descriptor), as text or as JSON.
 * Library code logs at debug only; the handler at the top logs an error once, with its ids.
 * Any thread; a line is one write() that never waits: a reader that does not read loses lines, and
 * is told their number with the next line that goes through.
 *
 *	log_info("pod ready", "pod", id, "backend", "kvm");       pairs of strings, key then value
 *	log_error("start failed", "container", id, "err", err_text(&e));
 */
#ifndef HUSK_BASE_LOG_H
#define HUSK_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define LOG_CONTEXT_PAIRS 2u
#define LOG_KEY_MAX 15u
#define LOG_VALUE_MAX 128u

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Before other threads start. fd is borrowed; a pipe, a FIFO or a terminal is opened a second time
 * where that is allowed, for a description of our own that does not block. `program` must stay
 * valid. */
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

/* For every message that somebody else can cause: a guest, a registry, an image, a worker, a
 * client, a plug-in. Each place in the code has LOG_SITE_LINES a minute; what is more is counted,
 * and the count is told when the minute is over, with the next line of the process. `msg` is a
 * constant. */
#define LOG_SITE_LINES 20u
#define LOG_SITE_NS (60 * NS_PER_S)

struct log_site {
	struct log_site *next; /* of those that held something back */
	const char *msg;
	enum log_level level;
	uint64_t since_ns; /* 0 = never used */
	uint32_t lines, held;
};

/* True: this line is within the limit. Any thread. */
bool log_site_pass(struct log_site *site, enum log_level l, const char *msg);

#define log_limited(level, msg, ...)                                                               \
	do {                                                                                       \
		static struct log_site log_site_here;                                              \
                                                                                                   \
		if (log_site_pass(&log_site_here, (level), (msg)))                                 \
			log_kv((level), (msg), ##__VA_ARGS__, (char *)NULL);                       \
	} while (0)

#endif
