/*
 * A thread beside a loop, for work that waits for a disk: it does the jobs that it is given one by
 * one, in order, and the loop hears of the end of each. The thread touches nothing but the job in
 * hand. All functions belong to the loop's thread.
 */
#ifndef HUSK_BASE_THREAD_WORK_H
#define HUSK_BASE_THREAD_WORK_H

#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct work;

/* Embedded in its owner, which must stay until `done`, which may free it. */
struct work_job {
	struct work_job *next;
	int (*work)(struct work_job *j, struct err *err);		   /* in the thread */
	void (*done)(struct work_job *j, int code, const struct err *err); /* on the loop */
	int code;
	struct err err;
};

int work_new(struct loop *l, struct work **ret, struct err *err) must_check;
/* Waits until all jobs are done, and calls their `done`, which may add more. NULL is fine. */
void work_free(struct work *w);
/* Never fails. work and done are set by the caller. */
void work_add(struct work *w, struct work_job *j);

#endif
