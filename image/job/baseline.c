#include "image/job/baseline.h"

#include <errno.h>
#include <stdlib.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/job/checker.h"
#include "image/job/jobs.h"
#include "image/store/layers.h"

#define QUIET_NS (2 * NS_PER_S) /* after the last layer came */

struct baseline {
	struct jobs *jobs;
	struct ev_timer timer;
	struct checker *checker; /* NULL = nothing is being read */
	char diff_id[DIGEST_LEN + 1];
	bool failed; /* no worker, no memory: not again before the next start */
};

static void baseline_on_quiet(struct ev_timer *t);

/* Without a timer it is done after the next layer, or start. */
static void wait_for_quiet(struct baseline *b, uint64_t ns)
{
	if (!b->checker && !b->failed)
		(void)!ev_timer_add(b->jobs->loop, &b->timer, ns, baseline_on_quiet, b);
}

static void baseline_on_checked(void *arg, int code, const char *digest, const struct err *err)
{
	struct baseline *b = arg;

	checker_free(b->checker);
	b->checker = NULL;
	if (code == -EBADMSG)
		code = layers_mark_damaged(b->jobs->store, b->diff_id, NULL);
	else if (code == 0)
		code = layers_set_baseline(b->jobs->store, b->diff_id, digest, NULL);
	b->failed = code < 0;
	wait_for_quiet(b, 0);
}

static int read_one(struct baseline *b)
{
	struct checker_file file = { .is_layer = true, .fd = -1 };
	int r = layers_open(b->jobs->store, b->diff_id, &file.fd, NULL);

	if (r < 0)
		return r;
	r = checker_new(&b->jobs->procs, &file, 1, true, baseline_on_checked, b, &b->checker, NULL);
	fd_close(&file.fd);
	return r;
}

static void baseline_on_quiet(struct ev_timer *t)
{
	struct baseline *b = t->arg;

	if (job_first(b->jobs, JOB_PULL)) {
		wait_for_quiet(b, QUIET_NS);
		return;
	}
	if (layers_without_baseline(b->jobs->store, b->diff_id, NULL) < 0)
		return;
	b->failed = read_one(b) < 0;
}

void baseline_schedule(struct jobs *js)
{
	if (!js->baseline) {
		js->baseline = calloc(1, sizeof(*js->baseline));
		if (!js->baseline)
			return;
		js->baseline->jobs = js;
	}
	wait_for_quiet(js->baseline, QUIET_NS);
}

void baseline_close(struct jobs *js)
{
	struct baseline *b = js->baseline;

	if (!b)
		return;
	ev_timer_del(&b->timer);
	checker_free(b->checker);
	free(b);
	js->baseline = NULL;
}
