#include "base/waits.h"

#include <errno.h>
#include <stdlib.h>

#include "base/check.h"

struct wait {
	struct wait *next;
	wait_fn fn;
	void *arg;
};

int waits_add(struct waits *w, wait_fn fn, void *arg)
{
	struct wait *n = malloc(sizeof(*n));

	if (!n)
		return -ENOMEM;
	*n = (struct wait){ .fn = fn, .arg = arg };
	if (!w->first)
		w->last = &w->first;
	*w->last = n;
	w->last = &n->next;
	return 0;
}

/* Takes the entry at *p out of the list. */
static void unlink_at(struct waits *w, struct wait **p)
{
	struct wait *n = *p;

	*p = n->next;
	if (w->last == &n->next)
		w->last = p;
	free(n);
}

void waits_remove(struct waits *w, const void *arg)
{
	struct wait **p = &w->first;

	while (*p && (*p)->arg != arg)
		p = &(*p)->next;
	check(*p);
	unlink_at(w, p);
}

void *waits_pop(struct waits *w)
{
	void *arg;

	if (!w->first)
		return NULL;
	arg = w->first->arg;
	unlink_at(w, &w->first);
	return arg;
}

void waits_run(struct waits *w, int code, const struct err *err)
{
	static const struct err none;
	struct wait *list = w->first, *n;

	/* The owner may be freed by a callback: w is not touched from here on. */
	*w = (struct waits){ 0 };
	while ((n = list)) {
		list = n->next;
		n->fn(n->arg, code, err ? err : &none);
		free(n);
	}
}

bool waits_empty(const struct waits *w)
{
	return !w->first;
}
