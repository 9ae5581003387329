#include "agent/work/pids.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "agent/limits.h"
#include "agent/proc/cgroup.h"
#include "base/util.h"

/* Only the pages that are written to are memory. */
struct pids_answer {
	struct err err;
	size_t n;
	pid_t list[AGENT_PIDS_MAX];
};

static int pids_work(void *arg)
{
	const struct pids *p = arg;
	struct pids_answer *a = p->answer;
	cleanup_free pid_t *list = NULL;
	int r = cgroup_pids(p->cgroup, &list, &a->n, &a->err);

	if (r == 0 && a->n > 0)
		memcpy(a->list, list, a->n * sizeof(*list));
	return r;
}

static void pids_on_done(struct worker *w, int result)
{
	struct pids *p = container_of(w, struct pids, worker);
	struct pids_answer *a = p->answer;

	if (result < 0 && a->err.code == 0)
		(void)err_set(&a->err, result, "the process that lists them was killed");
	p->done(p, result, a->list, a->n, &a->err);
	(void)munmap(a, sizeof(*a));
}

int pids_start(struct reaper *r, struct pids *p, int cgroup,
	       void (*done)(struct pids *, int, const pid_t *, size_t, const struct err *),
	       struct err *err)
{
	void *mem = mmap(NULL, sizeof(struct pids_answer), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int e;

	if (mem == MAP_FAILED)
		return err_nomem(err);
	*p = (struct pids){ .cgroup = cgroup, .answer = mem, .done = done };
	e = worker_start(r, &p->worker, pids_work, p, &cgroup, 1, pids_on_done);
	if (e == 0)
		return 0;
	(void)munmap(mem, sizeof(struct pids_answer));
	return err_errno(err, e, "a process that lists them");
}
