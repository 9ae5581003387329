#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/utf8.h"
#include "base/util.h"

#define LOG_LINE_MAX 4096u

struct pair {
	char key[LOG_KEY_MAX + 1]; /* "" = free */
	char value[LOG_VALUE_MAX + 1];
};

/* The log sink, the one mutable global of the library: where a record goes is a matter of the whole
 * process. */
static struct {
	const char *program;
	int fd;
	enum log_level min;
	bool json;
	struct pair context[LOG_CONTEXT_PAIRS];
} sink = { .program = "husk", .fd = STDERR_FILENO, .min = LOG_INFO };

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_init(const char *program, int fd, enum log_level min, bool json)
{
	sink.program = program;
	sink.fd = fd;
	sink.min = min;
	sink.json = json;
}

void log_set_context(const char *key, const char *value)
{
	struct pair *at = NULL;

	check(*key && strlen(key) <= LOG_KEY_MAX);
	for (size_t i = 0; i < LOG_CONTEXT_PAIRS && !at; i++)
		if (str_eq(sink.context[i].key, key))
			at = &sink.context[i];
	for (size_t i = 0; i < LOG_CONTEXT_PAIRS && !at; i++)
		if (!*sink.context[i].key)
			at = &sink.context[i];
	check(at);
	(void)snprintf(at->key, sizeof(at->key), "%s", value ? key : "");
	(void)snprintf(at->value, sizeof(at->value), "%s", value ? value : "");
}

int log_level_parse(const char *s, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (str_eq(s, level_names[i])) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *log_level_name(enum log_level l)
{
	return level_names[l];
}

bool log_on(enum log_level l)
{
	return l >= sink.min;
}

struct line {
	char text[LOG_LINE_MAX];
	size_t len;
};

/* Keeps one byte for the newline; what does not fit is cut. */
static void put(struct line *l, const char *s, size_t n)
{
	size_t room = sizeof(l->text) - 1 - l->len;

	if (n > room)
		n = room;
	memcpy(l->text + l->len, s, n);
	l->len += n;
}

static void puts_line(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/* Quotes and escapes as JSON does; bytes that are not UTF-8 become U+FFFD. */
static void put_quoted(struct line *l, const char *s)
{
	char esc[8];
	size_t n;

	/* Room for the worst escape, the closing quote and the end of the record: never half an
	 * escape. */
	put(l, "\"", 1);
	for (; *s && l->len + 16 < sizeof(l->text); s += n ? n : 1) {
		unsigned char c = (unsigned char)*s;

		n = utf8_len(s);
		if (c == '"' || c == '\\') {
			esc[0] = '\\';
			esc[1] = (char)c;
			put(l, esc, 2);
		} else if (c == '\n') {
			put(l, "\\n", 2);
		} else if (c < 0x20 || c == 0x7f) {
			(void)snprintf(esc, sizeof(esc), "\\u%04x", c);
			put(l, esc, 6);
		} else if (n == 0) {
			put(l, "\\ufffd", 6);
		} else {
			put(l, s, n);
		}
	}
	put(l, "\"", 1);
}

static bool plain_word(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7f)
			return false;
	}
	return true;
}

static bool leap(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* UTC, by hand: gmtime and strftime would bring libc's time zones and number parsers, a tenth of
 * the whole program, into the guest's agent. Times before 1970 are none of ours. */
static void put_time(struct line *l)
{
	static const uint8_t days_of[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	struct timespec ts;
	int64_t days, year = 1970, second, n;
	unsigned month = 0;
	char t[64];

	clock_gettime(CLOCK_REALTIME, &ts);
	days = ts.tv_sec / 86400;
	second = ts.tv_sec % 86400;
	for (; (n = leap(year) ? 366 : 365) <= days; year++)
		days -= n;
	for (; (n = days_of[month] + (month == 1 && leap(year))) <= days; month++)
		days -= n;
	(void)snprintf(t, sizeof(t), "%04d-%02u-%02dT%02d:%02d:%02d.%03ldZ", (int)year, month + 1,
		       (int)days + 1, (int)(second / 3600), (int)(second / 60 % 60),
		       (int)(second % 60), ts.tv_nsec / 1000000);
	puts_line(l, t);
}

static void put_pair(struct line *l, const char *key, const char *value)
{
	if (sink.json) {
		/* Too long a line loses its last pairs, it stays valid JSON. */
		if (l->len + strlen(key) + 40 > sizeof(l->text))
			return;
		put(l, ",", 1);
		put_quoted(l, key);
		put(l, ":", 1);
		put_quoted(l, value);
		return;
	}
	put(l, " ", 1);
	puts_line(l, key);
	put(l, "=", 1);
	if (plain_word(value))
		puts_line(l, value);
	else
		put_quoted(l, value);
}

void log_kv(enum log_level level, const char *msg, ...)
{
	struct line l = { .len = 0 };
	const char *key, *value;
	int saved = errno;
	va_list ap;

	if (!log_on(level))
		return;
	if (sink.json) {
		puts_line(&l, "{\"time\":\"");
		put_time(&l);
		puts_line(&l, "\",\"level\":\"");
		puts_line(&l, level_names[level]);
		puts_line(&l, "\",\"program\":");
		put_quoted(&l, sink.program);
		puts_line(&l, ",\"msg\":");
		put_quoted(&l, msg);
	} else {
		put_time(&l);
		put(&l, " ", 1);
		puts_line(&l, level_names[level]);
		put(&l, " ", 1);
		puts_line(&l, sink.program);
		puts_line(&l, ": ");
		puts_line(&l, msg);
	}
	for (size_t i = 0; i < LOG_CONTEXT_PAIRS; i++)
		if (*sink.context[i].key)
			put_pair(&l, sink.context[i].key, sink.context[i].value);
	va_start(ap, msg);
	while ((key = va_arg(ap, const char *))) {
		value = va_arg(ap, const char *);
		put_pair(&l, key, value ? value : "");
	}
	va_end(ap);
	if (sink.json)
		put(&l, "}", 1);
	l.text[l.len++] = '\n';
	/* A log that cannot be written has nowhere to say so. */
	(void)!write(sink.fd, l.text, l.len);
	errno = saved;
}

/* ---- check.h ---- */

void check_failed(const char *file, int line, const char *function, const char *cond)
{
	char where[160];

	(void)snprintf(where, sizeof(where), "%s:%d (%s)", file, line, function);
	log_error("a bug in this program: an invariant is broken", "at", where, "check", cond);
	abort();
}
