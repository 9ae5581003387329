#include "image/job/jobs.h"

#include "base/check.h"
#include "base/util.h"
#include "image/store/gc.h"
#include "image/store/space.h"

#define ROOM_EVERY_NS (100 * NS_PER_MS)

void job_add(struct jobs *js, struct job *j, enum job_kind kind,
	     void (*stop)(struct job *j, const struct err *why))
{
	check(!j->jobs);
	*j = (struct job){ .jobs = js, .next = js->list, .kind = kind, .stop = stop };
	js->list = j;
}

void job_remove(struct job *j)
{
	struct job **at;

	check(j->jobs);
	at = &j->jobs->list;
	while (*at && *at != j)
		at = &(*at)->next;
	check(*at == j);
	*at = j->next;
	j->jobs = NULL;
}

static struct job *of_kind(struct job *j, enum job_kind kind)
{
	while (j && j->kind != kind)
		j = j->next;
	return j;
}

struct job *job_first(const struct jobs *js, enum job_kind kind)
{
	return of_kind(js->list, kind);
}

struct job *job_next(const struct job *j)
{
	return of_kind(j->next, j->kind);
}

/* ---- room on the disk ---- */

static bool any_takes_room(const struct jobs *js)
{
	for (const struct job *j = js->list; j; j = j->next)
		if (j->taken)
			return true;
	return false;
}

static struct job *largest(const struct jobs *js)
{
	struct job *found = NULL;
	uint64_t most = 0;

	for (struct job *j = js->list; j; j = j->next) {
		uint64_t n = j->taken ? j->taken(j) : 0;

		if (n > most) {
			most = n;
			found = j;
		}
	}
	return found;
}

/* What was let go needs a moment to be free: so one step at a time. */
static void jobs_on_room_timer(struct ev_timer *t)
{
	struct jobs *js = t->arg;
	bool was_short = js->room_short;
	struct err err = { 0 };
	struct job *j;

	if (!any_takes_room(js))
		return;
	jobs_watch_room(js);
	js->room_short = space_check(js->store, 0, &err) < 0;
	if (!js->room_short)
		return;
	if (!was_short) {
		gc_make_room(js->store);
	} else if ((j = largest(js))) {
		js->room_short = false;
		j->stop(j, &err);
	}
}

void jobs_watch_room(struct jobs *js)
{
	/* Without memory for a timer the disk's own end is the only one. */
	if (!js->room_timer.loop)
		(void)!ev_timer_add(js->loop, &js->room_timer, ROOM_EVERY_NS, jobs_on_room_timer,
				    js);
}

void jobs_stop(struct jobs *js, const struct err *why)
{
	while (js->list) {
		struct job *j = js->list;

		j->stop(j, why);
		check(js->list != j);
	}
	ev_timer_del(&js->room_timer);
}
