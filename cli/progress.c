#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define REDRAW_NS (50 * NS_PER_MS)
#define BAR_MAX 40u

static const char *const state_names[] = {
	[HUSK__V1__LAYER_PROGRESS__STATE__WAITING] = "waiting",
	[HUSK__V1__LAYER_PROGRESS__STATE__FETCHING] = "fetching",
	[HUSK__V1__LAYER_PROGRESS__STATE__UNPACKING] = "unpacking",
	[HUSK__V1__LAYER_PROGRESS__STATE__DONE] = "done",
	[HUSK__V1__LAYER_PROGRESS__STATE__SHARED] = "already here",
};

static const char *state_name(Husk__V1__LayerProgress__State s)
{
	return (unsigned)s < ARRAY_SIZE(state_names) ? state_names[s] : "?";
}

void progress_init(struct progress *p)
{
	struct winsize ws = { 0 };

	*p = (struct progress){ .terminal = isatty(STDERR_FILENO) == 1, .columns = 80 };
	if (p->terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 40)
		p->columns = ws.ws_col;
}

/* "sha256:0123456789ab" of a digest, without its algorithm. */
static const char *short_digest(const char *digest)
{
	const char *colon = strchr(digest, ':');

	return colon ? colon + 1 : digest;
}

static void draw_bar(const struct progress *p, const Husk__V1__LayerProgress *l)
{
	unsigned width = MIN_OF(p->columns - 36, BAR_MAX), full;
	char bar[BAR_MAX + 1], size[32];
	bool over = l->state >= HUSK__V1__LAYER_PROGRESS__STATE__UNPACKING;

	if (p->columns < 48)
		width = 8;
	full = over ? width : l->size ? (unsigned)(l->fetched * width / l->size) : 0;
	full = MIN_OF(full, width);
	memset(bar, '#', full);
	memset(bar + full, '.', width - full);
	bar[width] = '\0';
	fprintf(stderr, "\r\033[K%.12s [%s] %8s  %s\n", short_digest(l->digest), bar,
		human_size(over ? l->size : l->fetched, size), state_name(l->state));
}

static void say_plainly(struct progress *p, const Husk__V1__PullProgress *msg)
{
	char size[32];

	for (size_t i = 0; i < msg->n_layers && i < sizeof(p->said); i++) {
		const Husk__V1__LayerProgress *l = msg->layers[i];

		if (p->said[i] == l->state + 1)
			continue;
		p->said[i] = (uint8_t)(l->state + 1);
		if (l->state != HUSK__V1__LAYER_PROGRESS__STATE__WAITING)
			fprintf(stderr, "%.12s %s (%s)\n", short_digest(l->digest),
				state_name(l->state), human_size(l->size, size));
	}
}

void progress_show(struct progress *p, const Husk__V1__PullProgress *msg, bool last)
{
	uint64_t now = now_mono_ns();

	if (!p->terminal) {
		say_plainly(p, msg);
		return;
	}
	if (!last && now - p->last_ns < REDRAW_NS)
		return;
	p->last_ns = now;
	if (p->drawn)
		fprintf(stderr, "\033[%zuA", p->drawn);
	for (size_t i = 0; i < msg->n_layers; i++)
		draw_bar(p, msg->layers[i]);
	p->drawn = msg->n_layers;
}
