#include "image/job/jobs.h"

#include "base/check.h"
#include "base/util.h"

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

void jobs_stop(struct jobs *js, const struct err *why)
{
	while (js->list) {
		struct job *j = js->list;

		j->stop(j, why);
		check(js->list != j);
	}
}
