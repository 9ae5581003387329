#include "cri/waits.h"

#include <errno.h>
#include <stdlib.h>

struct wait {
	struct wait *next;
	wait_fn fn;
	void *arg;
};

int waits_add(struct waits *w, wait_fn fn, void *arg)
{
	struct wait *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->fn = fn;
	n->arg = arg;
	if (!w->first)
		w->last = &w->first;
	*w->last = n;
	w->last = &n->next;
	return 0;
}

void waits_remove(struct waits *w, void *arg)
{
	for (struct wait **p = &w->first; *p; p = &(*p)->next) {
		struct wait *n = *p;
		if (n->arg != arg)
			continue;
		*p = n->next;
		if (w->last == &n->next)
			w->last = p;
		free(n);
		return;
	}
}

void waits_run(struct waits *w, int code, const struct err *err)
{
	static const struct err none;
	struct wait *list = w->first;

	/* The owner may be freed by a callback: w is not touched from here on. */
	*w = (struct waits){ 0 };
	while (list) {
		struct wait *n = list;
		list = n->next;
		n->fn(n->arg, code, err ? err : &none);
		free(n);
	}
}

bool waits_empty(const struct waits *w)
{
	return !w->first;
}
