#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/utf8.h"
#include "base/util.h"

#define LOG_LINE_MAX 4096u
/* A pipe takes as much whole or not at all. */
_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a line is one write");

/* How a line is written without waiting. The descriptor is borrowed and its description may be
 * shared with other processes, so O_NONBLOCK is not ours to set there. */
enum sink_kind {
	SINK_PLAIN,  /* a file: write */
	SINK_OWN,    /* a pipe or terminal, by a description of our own with O_NONBLOCK */
	SINK_POLL,   /* one that cannot be opened again, and what a program has before log_init:
			written when poll has room for a line */
	SINK_SOCKET, /* MSG_DONTWAIT */
};

struct pair {
	char key[LOG_KEY_MAX + 1]; /* "" = free */
	char value[LOG_VALUE_MAX + 1];
};

/* The log sink, the one mutable global of the library: where a record goes is a matter of the whole
 * process. */
static struct {
	const char *program;
	int fd;
	enum sink_kind kind;
	enum log_level min;
	bool json;
	struct pair context[LOG_CONTEXT_PAIRS];
	uint64_t lost; /* lines, not told yet; atomic */
	pthread_mutex_t sites_lock;
	struct log_site *sites; /* that held lines back; read without the lock, too */
} sink = { .program = "husk",
	   .fd = STDERR_FILENO,
	   .kind = SINK_POLL,
	   .min = LOG_INFO,
	   .sites_lock = PTHREAD_MUTEX_INITIALIZER };

static const char *const level_names[] = { "debug", "info", "warn", "error" };

static void sink_open(int fd)
{
	char path[40];
	struct stat st;
	int own;

	if (sink.kind == SINK_OWN)
		(void)close(sink.fd);
	sink.fd = fd;
	sink.kind = SINK_PLAIN;
	/* No kind at all: an eventfd or such, that a library had before main, by the number of a
	 * stream that was closed. A line is not for it. */
	if (fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) == 0) {
		sink.fd = -1;
		return;
	}
	if (S_ISSOCK(st.st_mode))
		sink.kind = SINK_SOCKET;
	if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
		return;
	sink.kind = SINK_POLL;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own < 0)
		return;
	sink.fd = own;
	sink.kind = SINK_OWN;
}

void log_init(const char *program, int fd, enum log_level min, bool json)
{
	int saved = errno;

	sink_open(fd);
	errno = saved;
	sink.program = program;
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

static void line_start(struct line *l, enum log_level level, const char *msg)
{
	l->len = 0;
	if (sink.json) {
		puts_line(l, "{\"time\":\"");
		put_time(l);
		puts_line(l, "\",\"level\":\"");
		puts_line(l, level_names[level]);
		puts_line(l, "\",\"program\":");
		put_quoted(l, sink.program);
		puts_line(l, ",\"msg\":");
		put_quoted(l, msg);
	} else {
		put_time(l);
		put(l, " ", 1);
		puts_line(l, level_names[level]);
		put(l, " ", 1);
		puts_line(l, sink.program);
		puts_line(l, ": ");
		puts_line(l, msg);
	}
	for (size_t i = 0; i < LOG_CONTEXT_PAIRS; i++)
		if (*sink.context[i].key)
			put_pair(l, sink.context[i].key, sink.context[i].value);
}

static ssize_t sink_put(const char *text, size_t len)
{
	struct pollfd p = { .fd = sink.fd, .events = POLLOUT };

	switch (sink.kind) {
	case SINK_SOCKET:
		return send(sink.fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	case SINK_POLL:
		if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
			return -1;
		break;
	default:
		break;
	}
	return write(sink.fd, text, len);
}

static bool line_end(struct line *l)
{
	if (sink.json)
		put(l, "}", 1);
	l->text[l->len++] = '\n';
	/* A log that cannot be written has nowhere to say so now. */
	return sink_put(l->text, l->len) == (ssize_t)l->len;
}

static void log_count(enum log_level level, const char *msg, const char *key, uint64_t n,
		      uint64_t lost)
{
	char number[24];
	struct line l;

	(void)snprintf(number, sizeof(number), "%llu", (unsigned long long)n);
	line_start(&l, level, msg);
	put_pair(&l, key, number);
	if (!line_end(&l))
		__atomic_add_fetch(&sink.lost, lost, __ATOMIC_RELAXED);
}

/* What was held back in minutes that are over. */
static void log_held(void)
{
	uint64_t now;
	struct log_site **at, *s;

	if (!__atomic_load_n(&sink.sites, __ATOMIC_RELAXED))
		return;
	now = now_mono_ns();
	pthread_mutex_lock(&sink.sites_lock);
	for (at = &sink.sites; (s = *at);) {
		if (now - s->since_ns < LOG_SITE_NS) {
			at = &s->next;
			continue;
		}
		__atomic_store_n(at, s->next, __ATOMIC_RELAXED);
		log_count(s->level, s->msg, "held_back", s->held, 1);
		s->held = 0;
	}
	pthread_mutex_unlock(&sink.sites_lock);
}

bool log_site_pass(struct log_site *s, enum log_level level, const char *msg)
{
	uint64_t now;
	int saved = errno;
	bool pass;

	if (!log_on(level))
		return false;
	log_held();
	now = now_mono_ns();
	pthread_mutex_lock(&sink.sites_lock);
	if (s->since_ns == 0 || now - s->since_ns >= LOG_SITE_NS) {
		s->since_ns = now;
		s->lines = 0;
	}
	pass = s->lines < LOG_SITE_LINES;
	if (pass) {
		s->lines++;
	} else if (s->held++ == 0) {
		s->msg = msg;
		s->level = level;
		s->next = sink.sites;
		__atomic_store_n(&sink.sites, s, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&sink.sites_lock);
	errno = saved;
	return pass;
}

void log_kv(enum log_level level, const char *msg, ...)
{
	const char *key, *value;
	int saved = errno;
	uint64_t lost;
	struct line l;
	va_list ap;

	if (!log_on(level))
		return;
	log_held();
	lost = __atomic_exchange_n(&sink.lost, 0, __ATOMIC_RELAXED);
	if (lost > 0)
		log_count(LOG_WARN, "log lines lost: nobody read them in time", "lines", lost,
			  lost);
	line_start(&l, level, msg);
	va_start(ap, msg);
	while ((key = va_arg(ap, const char *))) {
		value = va_arg(ap, const char *);
		put_pair(&l, key, value ? value : "");
	}
	va_end(ap);
	if (!line_end(&l))
		__atomic_add_fetch(&sink.lost, 1, __ATOMIC_RELAXED);
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
