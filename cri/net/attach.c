#include "cri/net/attach.h"

#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/net/netns.h"

static void op_end(struct attach *a, int code, const struct err *err);

static int set_unwanted(struct err *err)
{
	return err_set(err, -ECANCELED, "the pod's network is not wanted any more");
}

/* ---- work of the thread ---- */

static int attach_work_lock(struct aside *as, struct err *err)
{
	struct attach_job *j = container_of(as, struct attach_job, aside);
	int r = record_lock(j->dir, j->id, j->wait_ms, &as->hurry, &j->lock_fd, err);

	j->there = netns_there(j->netns);
	return r;
}

/* In this order: what is made after the record is found by it. */
static int attach_work_add(struct aside *as, struct err *err)
{
	struct attach_job *j = container_of(as, struct attach_job, aside);
	int r = record_write(j->dir, j->id, j->text, err);

	if (r == 0)
		r = attach_work_lock(as, err);
	if (r == 0)
		r = netns_create(j->netns, err);
	return r;
}

static int attach_work_remove(struct aside *as, struct err *err)
{
	struct attach_job *j = container_of(as, struct attach_job, aside);
	int r = netns_remove(j->netns, err);

	return r < 0 ? r : record_remove(j->dir, j->id, err);
}

static void job_fini(struct attach_job *j)
{
	aside_stop(&j->aside);
	free(j->dir);
	free(j->id);
	free(j->netns);
	free(j->text);
	fd_close(&j->lock_fd);
	*j = (struct attach_job){ .lock_fd = -1 };
}

/* ---- steps ---- */

static int attach_on_result(struct chain *c, struct err *err)
{
	struct attach *a = container_of(c, struct attach, chain);
	int r;

	json_decref(a->rec.result);
	a->rec.result = json_incref(c->prev);
	a->rec.complete = c->done_n + 1 == a->list->n;
	r = record_write_result(a->net->dir, &a->rec, err);
	return r < 0 ? err_wrap(err, r, "keep the result") : 0;
}

static void attach_on_removed(struct aside *as, int code, const struct err *err)
{
	op_end(container_of(as, struct attach, job.aside), code, err);
}

static void attach_on_chain(struct chain *c, int code, const struct err *why)
{
	struct attach *a = container_of(c, struct attach, chain);
	struct err err = *why;

	if (code == 0 && a->op == ATTACH_ADD)
		code = net_result_parse(a->rec.result, &a->result, &err);
	if (code == 0 && a->op == ATTACH_DEL) {
		a->job.aside.work = attach_work_remove;
		a->job.aside.done = attach_on_removed;
		code = aside_start(&a->job.aside, a->net->loop, &err);
		if (code == 0)
			return;
	}
	op_end(a, code, &err);
}

static void attach_on_ready(struct aside *as, int code, const struct err *why)
{
	struct attach *a = container_of(as, struct attach, job.aside);
	struct err err = *why;
	struct chain_call call = {
		.list = a->list,
		.bin_dirs = a->net->bin_dirs,
		.command = a->op == ATTACH_ADD	 ? CNI_ADD
			   : a->op == ATTACH_DEL ? CNI_DEL
						 : CNI_CHECK,
		.id = a->rec.id,
		/* Plug-ins take no name for one that is gone. */
		.netns = a->op != ATTACH_DEL || a->job.there ? a->rec.netns : "",
		.ifname = a->rec.ifname,
		.args = a->rec.args,
		.caps = a->rec.caps,
		.prev = a->op == ATTACH_ADD ? NULL : a->rec.result,
		.lock_fd = a->job.lock_fd,
		.timeout_ms = a->net->plugin_ms,
	};

	if (a->doomed && a->op != ATTACH_DEL)
		code = set_unwanted(&err);
	if (code == 0)
		code = chain_start(&a->chain, a->net->loop, &call,
				   a->op == ATTACH_ADD ? attach_on_result : NULL, attach_on_chain,
				   &err);
	if (code < 0)
		op_end(a, code, &err);
}

static int op_start(struct attach *a, enum attach_op op, struct err *err)
{
	struct attach_job *j = &a->job;
	int r = 0;

	*j = (struct attach_job){ .lock_fd = -1, .wait_ms = a->net->plugin_ms };
	j->dir = strdup(a->net->dir);
	j->id = strdup(a->rec.id);
	j->netns = strdup(a->rec.netns);
	if (!j->dir || !j->id || !j->netns)
		r = err_nomem(err);
	if (r == 0 && op == ATTACH_ADD)
		r = record_text(&a->rec, &j->text, err);
	j->aside.work = op == ATTACH_ADD ? attach_work_add : attach_work_lock;
	j->aside.done = attach_on_ready;
	if (r == 0)
		r = aside_start(&j->aside, a->net->loop, err);
	if (r < 0)
		job_fini(j);
	return r;
}

/* ---- what comes next ---- */

static enum attach_op wanted(const struct attach *a)
{
	if (a->op != ATTACH_NONE)
		return ATTACH_NONE;
	if (a->doomed)
		return a->want_del ? ATTACH_DEL : ATTACH_NONE;
	if (a->want_add)
		return ATTACH_ADD;
	return waits_empty(&a->checks) ? ATTACH_NONE : ATTACH_CHECK;
}

static bool must_wait(const struct net *n, enum attach_op op)
{
	/* What is added while GC runs is not in the list that GC has. */
	return n->running >= NET_AT_ONCE_MAX || (op == ATTACH_ADD && n->gc_chain.running);
}

static void enqueue(struct attach *a)
{
	struct net *n = a->net;

	if (a->queued)
		return;
	a->queued = true;
	a->next_queued = NULL;
	*n->queue_last = a;
	n->queue_last = &a->next_queued;
}

static void dequeue(struct attach *a)
{
	struct net *n = a->net;
	struct attach **p = &n->queue;

	if (!a->queued)
		return;
	while (*p != a)
		p = &(*p)->next_queued;
	*p = a->next_queued;
	if (n->queue_last == &a->next_queued)
		n->queue_last = p;
	a->queued = false;
}

int attach_next(struct attach *a, struct err *err)
{
	enum attach_op op = wanted(a);
	int r;

	if (op == ATTACH_NONE)
		return 0;
	if (must_wait(a->net, op)) {
		enqueue(a);
		return 0;
	}
	dequeue(a);
	r = op_start(a, op, err);
	if (r == 0) {
		a->op = op;
		a->net->running++;
	}
	return r;
}

void attach_kick(struct attach *a)
{
	struct err err = { 0 };
	enum attach_op op = wanted(a);
	int r = attach_next(a, &err);

	if (r < 0) {
		a->op = op;
		a->net->running++;
		op_end(a, r, &err);
	}
}

void attach_run_queue(struct net *n)
{
	struct attach *a = n->queue, *next;

	for (; a && n->running < NET_AT_ONCE_MAX; a = next) {
		next = a->next_queued;
		if (must_wait(n, wanted(a)))
			continue;
		dequeue(a);
		/* Others may be freed by what this calls: from the start again. */
		attach_kick(a);
		next = n->queue;
	}
}

void attach_doom(struct attach *a)
{
	a->doomed = true;
	a->want_add = false;
	if (a->op == ATTACH_DEL)
		return;
	a->want_del = true;
	if (a->op == ATTACH_NONE)
		return;
	atomic_store(&a->job.aside.hurry, true);
	chain_abort(&a->chain);
}

/* ---- the end of an operation ---- */

static void attach_on_retry(struct ev_timer *t)
{
	struct attach *a = t->arg;

	a->want_del = true;
	attach_kick(a);
}

static void retry_later(struct attach *a, const struct err *err)
{
	log_limited(LOG_WARN, "a pod's network cannot be taken down, it is tried again", "pod",
		    a->rec.id, "err", err_text(err));
	a->retry_ms = a->retry_ms ? MIN_OF(a->retry_ms * 2, (uint64_t)NET_RETRY_MAX_MS)
				  : a->net->retry_ms;
	if (ev_timer_add(a->net->loop, &a->retry, a->retry_ms * NS_PER_MS, attach_on_retry, a) < 0)
		log_error("no memory for another try", "pod", a->rec.id);
}

static void unlink_attach(struct attach *a)
{
	struct attach **p = &a->net->first;

	while (*p && *p != a)
		p = &(*p)->next;
	if (*p)
		*p = a->next;
}

static void end_add(struct attach *a, int code, struct err *err)
{
	net_add_fn done = a->add_done;

	a->want_add = false;
	a->add_done = NULL;
	if (code == 0 && a->doomed)
		code = set_unwanted(err);
	if (code < 0)
		attach_doom(a);
	attach_kick(a);
	if (done)
		done(a->add_arg, code, code == 0 ? a->result : NULL, err);
}

static void end_check(struct attach *a, int code, const struct err *err)
{
	waits_run(&a->checks, code, err);
	attach_kick(a);
}

static void end_del(struct attach *a, int code, const struct err *err)
{
	net_add_fn add_done = a->add_done;
	struct err gone = { 0 };
	int r = set_unwanted(&gone);

	a->want_del = false;
	a->add_done = NULL;
	if (code < 0)
		retry_later(a, err);
	else
		unlink_attach(a);
	/* Of an ADD and a CHECK that had not started. */
	if (add_done)
		add_done(a->add_arg, r, NULL, &gone);
	waits_run(&a->checks, r, &gone);
	waits_run(&a->dels, code, err);
	if (code == 0)
		attach_free(a);
}

static void op_end(struct attach *a, int code, const struct err *why)
{
	struct net *n = a->net;
	enum attach_op op = a->op;
	struct err err = *why;

	job_fini(&a->job);
	chain_stop(&a->chain);
	a->op = ATTACH_NONE;
	n->running--;
	if (op == ATTACH_ADD)
		end_add(a, code, &err);
	else if (op == ATTACH_CHECK)
		end_check(a, code, &err);
	else
		end_del(a, code, &err);
	attach_run_queue(n);
}

/* ---- the object ---- */

struct attach *attach_find(const struct net *n, const char *id)
{
	struct attach *a = n->first;

	while (a && !str_eq(a->rec.id, id))
		a = a->next;
	return a;
}

int attach_new(struct net *n, struct record *rec, struct attach **ret, struct err *err)
{
	struct attach *a = calloc(1, sizeof(*a));
	int r = a ? net_list_of(rec->list, &a->list, err) : err_nomem(err);

	if (r < 0) {
		free(a);
		return r;
	}
	a->net = n;
	a->job.lock_fd = -1;
	a->rec = *rec;
	*rec = (struct record){ 0 };
	a->next = n->first;
	n->first = a;
	*ret = a;
	return 0;
}

void attach_free(struct attach *a)
{
	if (!a)
		return;
	unlink_attach(a);
	dequeue(a);
	ev_timer_del(&a->retry);
	chain_stop(&a->chain);
	job_fini(&a->job);
	while (!waits_empty(&a->dels))
		(void)!waits_pop(&a->dels);
	while (!waits_empty(&a->checks))
		(void)!waits_pop(&a->checks);
	record_fini(&a->rec);
	net_list_free(a->list);
	net_result_free(a->result);
	free(a);
}
