#include "shim/service/pending.h"

#include <errno.h>
#include <stdlib.h>

struct pending {
	struct ttrpc_call *call;
	struct waits *list;
	pending_answer answer;
	void *subject;
};

static void pending_on_run(void *arg, int code, const struct err *err)
{
	struct pending *p = arg;

	p->answer(p->call, p->subject, code, err);
	free(p);
}

static void pending_on_cancel(struct ttrpc_call *call, void *arg)
{
	struct pending *p = arg;

	waits_remove(p->list, p);
	ttrpc_reply_err(call, -ECANCELED, NULL);
	free(p);
}

void pending_add(struct ttrpc_call *call, struct waits *list, pending_answer answer, void *subject)
{
	struct pending *p = malloc(sizeof(*p));
	struct err err = { 0 };
	int r = -ENOMEM;

	if (p) {
		*p = (struct pending){
			.call = call, .list = list, .answer = answer, .subject = subject
		};
		r = waits_add(list, pending_on_run, p);
	}
	if (r < 0) {
		free(p);
		ttrpc_reply_err(call, err_nomem(&err), &err);
		return;
	}
	ttrpc_call_on_cancel(call, pending_on_cancel, p);
}
