#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/out.h"

#define REDRAW_NS (50 * NS_PER_MS)
#define BAR_MAX 40u

void progress_init(struct progress *p, enum progress_kind kind)
{
	struct winsize ws = { 0 };

	*p = (struct progress){ .kind = kind,
				.terminal = isatty(STDERR_FILENO) == 1,
				.columns = 80 };
	if (p->terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 40)
		p->columns = ws.ws_col;
}

void progress_end(struct progress *p)
{
	p->drawn = 0;
	memset(p->said, 0, sizeof(p->said));
}

/* "sha256:0123456789ab" of a digest, without its algorithm. */
static const char *short_digest(const char *digest)
{
	const char *colon = strchr(digest, ':');

	return colon ? colon + 1 : digest;
}

static void draw_bar(const struct progress *p, const struct progress_item *it)
{
	unsigned width = MIN_OF(p->columns - 36, BAR_MAX), full;
	char bar[BAR_MAX + 1], size[32];

	if (p->columns < 48)
		width = 8;
	full = it->over ? width : it->size ? (unsigned)(it->done * width / it->size) : 0;
	full = MIN_OF(full, width);
	memset(bar, '#', full);
	memset(bar + full, '.', width - full);
	bar[width] = '\0';
	fprintf(stderr, "\r\033[K%.12s [%s] %8s  %s\n", short_digest(it->digest), bar,
		human_size(it->over ? it->size : it->done, size), it->state);
}

static void say_plainly(struct progress *p, const struct progress_item *items, size_t n)
{
	char size[32];

	for (size_t i = 0; i < n && i < PROGRESS_MAX_ITEMS; i++) {
		if (p->said[i] == items[i].state)
			continue;
		p->said[i] = items[i].state;
		if (items[i].begun)
			fprintf(stderr, "%.12s %s (%s)\n", short_digest(items[i].digest),
				items[i].state, human_size(items[i].size, size));
	}
}

static void say_json(const struct progress_item *items, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < n; i++)
		(void)json_array_append_new(
			a, json_pack("{s:s, s:I, s:I, s:s}", "digest", items[i].digest, "done",
				     (json_int_t)items[i].done, "size", (json_int_t)items[i].size,
				     "state", items[i].state));
	(void)print_json(json_pack("{s:s, s:o}", "event", "progress", "items", a), false);
}

void progress_show(struct progress *p, const struct progress_item *items, size_t n, bool last)
{
	uint64_t now = now_mono_ns();

	if (p->kind == PROGRESS_NONE)
		return;
	if (p->kind == PROGRESS_PEOPLE && !p->terminal) {
		say_plainly(p, items, n);
		return;
	}
	if (!last && now - p->last_ns < REDRAW_NS)
		return;
	p->last_ns = now;
	if (p->kind == PROGRESS_JSON) {
		say_json(items, n);
		return;
	}
	if (p->drawn)
		fprintf(stderr, "\033[%zuA", p->drawn);
	for (size_t i = 0; i < n; i++)
		draw_bar(p, &items[i]);
	p->drawn = n;
}

void progress_layers(struct progress *p, Husk__LayerProgress *const *layers, size_t n, bool last)
{
	static const char *const states[] = {
		[HUSK__LAYER_PROGRESS__STATE__WAITING] = "waiting",
		[HUSK__LAYER_PROGRESS__STATE__FETCHING] = "fetching",
		[HUSK__LAYER_PROGRESS__STATE__UNPACKING] = "unpacking",
		[HUSK__LAYER_PROGRESS__STATE__DONE] = "done",
		[HUSK__LAYER_PROGRESS__STATE__SHARED] = "already here",
	};
	struct progress_item items[PROGRESS_MAX_ITEMS];

	n = MIN_OF(n, (size_t)PROGRESS_MAX_ITEMS);
	for (size_t i = 0; i < n; i++) {
		const Husk__LayerProgress *l = layers[i];
		unsigned s = (unsigned)l->state;

		items[i] = (struct progress_item){
			.digest = l->digest,
			.done = l->fetched,
			.size = l->size,
			.state = s < ARRAY_SIZE(states) ? states[s] : "?",
			.begun = s != HUSK__LAYER_PROGRESS__STATE__WAITING,
			.over = s >= HUSK__LAYER_PROGRESS__STATE__UNPACKING,
		};
	}
	progress_show(p, items, n, last);
}

void progress_blobs(struct progress *p, Husk__BlobProgress *const *blobs, size_t n, bool last)
{
	static const char *const states[] = {
		[HUSK__BLOB_PROGRESS__STATE__WAITING] = "waiting",
		[HUSK__BLOB_PROGRESS__STATE__SENDING] = "sending",
		[HUSK__BLOB_PROGRESS__STATE__DONE] = "done",
		[HUSK__BLOB_PROGRESS__STATE__THERE] = "already there",
		[HUSK__BLOB_PROGRESS__STATE__MOUNTED] = "mounted",
	};
	struct progress_item items[PROGRESS_MAX_ITEMS];

	n = MIN_OF(n, (size_t)PROGRESS_MAX_ITEMS);
	for (size_t i = 0; i < n; i++) {
		const Husk__BlobProgress *b = blobs[i];
		unsigned s = (unsigned)b->state;

		items[i] = (struct progress_item){
			.digest = b->digest,
			.done = b->sent,
			.size = b->size,
			.state = s < ARRAY_SIZE(states) ? states[s] : "?",
			.begun = s != HUSK__BLOB_PROGRESS__STATE__WAITING,
			.over = s >= HUSK__BLOB_PROGRESS__STATE__DONE,
		};
	}
	progress_show(p, items, n, last);
}

void progress_bytes(struct progress *p, const char *what, uint64_t done, uint64_t total, bool last)
{
	uint64_t now = now_mono_ns();
	char a[32], b[32];

	if (p->kind == PROGRESS_NONE || (!last && now - p->last_ns < REDRAW_NS))
		return;
	p->last_ns = now;
	if (p->kind == PROGRESS_JSON) {
		(void)print_json(json_pack("{s:s, s:s, s:I, s:I}", "event", "progress", "what",
					   what, "done", (json_int_t)done, "size",
					   (json_int_t)total),
				 false);
		return;
	}
	if (!p->terminal && !last)
		return;
	fprintf(stderr, "%s%s %s", p->terminal ? "\r\033[K" : "", what, human_size(done, a));
	if (total && !last)
		fprintf(stderr, " of %s", human_size(total, b));
	if (last || !p->terminal)
		fputc('\n', stderr);
}

void progress_line(struct progress *p, const char *fmt, ...)
{
	uint64_t now = now_mono_ns();
	va_list ap;

	if (p->kind != PROGRESS_PEOPLE || !p->terminal || now - p->last_ns < REDRAW_NS)
		return;
	p->last_ns = now;
	fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
}

void progress_clear(struct progress *p)
{
	if (p->kind == PROGRESS_PEOPLE && p->terminal)
		fputs("\r\033[K", stderr);
}
