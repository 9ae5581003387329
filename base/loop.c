#include "base/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"

#define BATCH 64
#define BUDGET_MAX_MS 3600000u
#ifdef NDEBUG
#define BUDGET_MS 0u
#else
#define BUDGET_MS 50u
#endif

extern const char __executable_start; /* of the linker */

struct post {
	struct post *next;
	void (*fn)(void *arg);
	void *arg;
};

struct loop {
	int epfd;
	int result;
	bool stop;
	size_t n_io;	    /* descriptors watched, our own two among them */
	uint64_t budget_ns; /* of a callback; 0 = not measured */
	int sched_fd;	    /* -1 = not measured */

	/* The batch in hand; deleting a source clears its entries. */
	struct epoll_event batch[BATCH];
	int batch_n, batch_i;

	/* Binary heap by at_ns; timers know their slot. The timerfd runs for the first one. */
	struct ev_timer **heap;
	size_t heap_n, heap_cap;
	struct ev_io timer_io;
	uint64_t armed_ns; /* 0 = not armed */

	/* Wake-ups: the only part that other threads touch. */
	pthread_mutex_t lock;
	struct post *head, **tail;
	struct ev_io post_io;
};

/* ---- the budget of a callback ---- */

struct lap {
	uint64_t wall, cpu, waited;
};

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* How long this thread has been ready and had no CPU: a busy machine is no fault of a callback.
 * 0 where the kernel does not count it (CONFIG_SCHED_INFO). */
static uint64_t waited_ns(struct loop *l)
{
	char text[64], *second;
	ssize_t n;

	n = l->sched_fd < 0 ? -1 : pread(l->sched_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	/* Not sscanf: it would make a tenth of the guest's agent, which each boot unpacks. */
	second = strchr(text, ' ');
	return second ? strtoull(second, NULL, 10) : 0;
}

static struct lap lap_start(struct loop *l)
{
	if (l->budget_ns == 0)
		return (struct lap){ 0 };
	return (struct lap){ .wall = now_mono_ns(), .cpu = cpu_ns(), .waited = waited_ns(l) };
}

static void lap_end(struct loop *l, struct lap start, const char *kind, uintptr_t fn)
{
	char at[24], ms[24], cpu_ms[24];
	uint64_t wall;

	if (l->budget_ns == 0)
		return;
	wall = now_mono_ns() - start.wall;
	if (wall <= l->budget_ns)
		return;
	wall -= MIN_OF(wall, waited_ns(l) - start.waited);
	if (wall <= l->budget_ns)
		return;
	(void)snprintf(at, sizeof(at), "%#llx",
		       (unsigned long long)(fn - (uintptr_t)&__executable_start));
	(void)snprintf(ms, sizeof(ms), "%llu", (unsigned long long)(wall / NS_PER_MS));
	(void)snprintf(cpu_ms, sizeof(cpu_ms), "%llu",
		       (unsigned long long)((cpu_ns() - start.cpu) / NS_PER_MS));
	log_warn("a callback took long", "source", kind, "callback", at, "ms", ms, "cpu_ms",
		 cpu_ms);
}

/* fn(...), measured. The callback may free its source. */
#define call_measured(l, kind, fn, ...)                                                            \
	do {                                                                                       \
		struct loop *l_ = (l);                                                             \
		__typeof__(fn) fn_ = (fn);                                                         \
		struct lap lap_ = lap_start(l_);                                                   \
                                                                                                   \
		fn_(__VA_ARGS__);                                                                  \
		lap_end(l_, lap_, (kind), (uintptr_t)fn_);                                         \
	} while (0)

static uint64_t budget_of_environment(void)
{
	const char *s = getenv("HUSK_LOOP_BUDGET_MS");
	uint64_t ms = BUDGET_MS;

	if (s && str_to_u64(s, 0, BUDGET_MAX_MS, &ms) < 0)
		ms = BUDGET_MS;
	return ms * NS_PER_MS;
}

/* ---- descriptors ---- */

int ev_io_add(struct loop *l, struct ev_io *io, int fd, uint32_t events,
	      void (*cb)(struct ev_io *, uint32_t), void *arg)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	check(!io->loop);
	*io = (struct ev_io){ .fd = fd, .events = events, .cb = cb, .arg = arg };
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	io->loop = l;
	l->n_io++;
	return 0;
}

int ev_io_set(struct ev_io *io, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	check(io->loop);
	if (io->events == events)
		return 0;
	if (epoll_ctl(io->loop->epfd, EPOLL_CTL_MOD, io->fd, &ev) < 0)
		return -errno;
	io->events = events;
	return 0;
}

void ev_io_del(struct ev_io *io)
{
	struct loop *l = io->loop;

	if (!l)
		return;
	(void)epoll_ctl(l->epfd, EPOLL_CTL_DEL, io->fd, NULL);
	for (int i = l->batch_i; i < l->batch_n; i++)
		if (l->batch[i].data.ptr == io)
			l->batch[i].data.ptr = NULL;
	check(l->n_io > 0);
	l->n_io--;
	io->loop = NULL;
}

/* ---- timers ---- */

static void heap_put(struct loop *l, size_t i, struct ev_timer *t)
{
	l->heap[i] = t;
	t->slot = i;
}

static void heap_up(struct loop *l, size_t i)
{
	struct ev_timer *t = l->heap[i];

	while (i > 0 && l->heap[(i - 1) / 2]->at_ns > t->at_ns) {
		heap_put(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(l, i, t);
}

static void heap_down(struct loop *l, size_t i)
{
	struct ev_timer *t = l->heap[i];
	size_t c;

	while ((c = 2 * i + 1) < l->heap_n) {
		if (c + 1 < l->heap_n && l->heap[c + 1]->at_ns < l->heap[c]->at_ns)
			c++;
		if (l->heap[c]->at_ns >= t->at_ns)
			break;
		heap_put(l, i, l->heap[c]);
		i = c;
	}
	heap_put(l, i, t);
}

static void timers_arm(struct loop *l)
{
	struct itimerspec its = { 0 };
	uint64_t at = l->heap_n ? l->heap[0]->at_ns : 0;

	/* A timer that fires too early finds nothing to do; only a later one has to be moved. */
	if (at == l->armed_ns || (at == 0 && l->armed_ns != 0))
		return;
	its.it_value.tv_sec = (time_t)(at / NS_PER_S);
	its.it_value.tv_nsec = (long)(at % NS_PER_S);
	(void)timerfd_settime(l->timer_io.fd, TFD_TIMER_ABSTIME, &its, NULL);
	l->armed_ns = at;
}

int ev_timer_add(struct loop *l, struct ev_timer *t, uint64_t after_ns,
		 void (*cb)(struct ev_timer *), void *arg)
{
	struct ev_timer **heap;
	size_t cap;

	ev_timer_del(t);
	if (l->heap_n == l->heap_cap) {
		cap = l->heap_cap ? l->heap_cap * 2 : 16;
		heap = reallocarray(l->heap, cap, sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		l->heap = heap;
		l->heap_cap = cap;
	}
	*t = (struct ev_timer){ .loop = l, .cb = cb, .arg = arg };
	if (__builtin_add_overflow(now_mono_ns(), after_ns, &t->at_ns))
		t->at_ns = UINT64_MAX;
	heap_put(l, l->heap_n++, t);
	heap_up(l, t->slot);
	timers_arm(l);
	return 0;
}

void ev_timer_del(struct ev_timer *t)
{
	struct loop *l = t->loop;
	struct ev_timer *last;
	size_t i = t->slot;

	if (!l)
		return;
	/* Memory that was freed while its timer ran has most likely other contents now. */
	check(i < l->heap_n && l->heap[i] == t);
	t->loop = NULL;
	last = l->heap[--l->heap_n];
	if (last == t)
		return;
	heap_put(l, i, last);
	heap_up(l, i);
	heap_down(l, last->slot);
}

static void loop_run_timers(struct ev_io *io, uint32_t events)
{
	struct loop *l = io->arg;
	uint64_t n, now = now_mono_ns();
	struct ev_timer *t;

	(void)!read(io->fd, &n, sizeof(n));
	l->armed_ns = 0;
	/* `now` is taken once: a timer that adds itself again with 0 ns runs in the next round. */
	while (l->heap_n && l->heap[0]->at_ns <= now) {
		t = l->heap[0];
		ev_timer_del(t);
		call_measured(l, "timer", t->cb, t);
	}
	timers_arm(l);
}

/* ---- wake-ups ---- */

int loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));
	const uint64_t one = 1;
	bool first;

	if (!p)
		return -ENOMEM;
	*p = (struct post){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&l->lock);
	first = !l->head;
	*l->tail = p;
	l->tail = &p->next;
	/* Inside the lock: the loop may be freed as soon as it has seen the post. */
	if (first)
		(void)!write(l->post_io.fd, &one, sizeof(one));
	pthread_mutex_unlock(&l->lock);
	return 0;
}

static void loop_run_posts(struct ev_io *io, uint32_t events)
{
	struct loop *l = io->arg;
	struct post *p, *next;
	uint64_t n;

	pthread_mutex_lock(&l->lock);
	(void)!read(io->fd, &n, sizeof(n));
	p = l->head;
	l->head = NULL;
	l->tail = &l->head;
	pthread_mutex_unlock(&l->lock);
	for (; p; p = next) {
		next = p->next;
		call_measured(l, "post", p->fn, p->arg);
		free(p);
	}
}

/* ---- the loop ---- */

static void loop_on_signal(struct ev_io *io, uint32_t events);
static void loop_on_child(struct ev_io *io, uint32_t events);

int loop_new(struct loop **ret, struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	int tfd = -1, efd = -1, r;

	if (!l)
		return err_nomem(err);
	l->tail = &l->head;
	l->sched_fd = -1;
	l->budget_ns = budget_of_environment();
	if (l->budget_ns > 0) /* of this thread, which is the one that runs it */
		l->sched_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	pthread_mutex_init(&l->lock, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	tfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epfd < 0 || tfd < 0 || efd < 0) {
		r = -errno;
		goto fail;
	}
	r = ev_io_add(l, &l->timer_io, tfd, EPOLLIN, loop_run_timers, l);
	if (r == 0)
		r = ev_io_add(l, &l->post_io, efd, EPOLLIN, loop_run_posts, l);
	if (r < 0)
		goto fail;
	*ret = l;
	return 0;
fail:
	fd_close(&tfd);
	fd_close(&efd);
	fd_close(&l->sched_fd);
	fd_close(&l->epfd);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return err_errno(err, r, "event loop");
}

void loop_free(struct loop *l)
{
	struct post *p;

	if (!l)
		return;
	check(l->heap_n == 0 && l->n_io == 2);
	while ((p = l->head)) {
		l->head = p->next;
		free(p);
	}
	fd_close(&l->timer_io.fd);
	fd_close(&l->post_io.fd);
	fd_close(&l->sched_fd);
	fd_close(&l->epfd);
	pthread_mutex_destroy(&l->lock);
	free(l->heap);
	free(l);
}

static void dispatch(struct loop *l, struct ev_io *io, uint32_t events)
{
	void (*fn)(struct ev_io *, uint32_t) = io->cb;

	/* Those measure each callback that they call. */
	if (fn == loop_run_timers || fn == loop_run_posts || fn == loop_on_signal ||
	    fn == loop_on_child)
		fn(io, events);
	else
		call_measured(l, "descriptor", fn, io, events);
}

int loop_once(struct loop *l, int timeout_ms)
{
	struct epoll_event ev;
	struct ev_io *io;
	int n, called = 0;

	do {
		n = epoll_wait(l->epfd, l->batch, BATCH, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	l->batch_n = n;
	for (l->batch_i = 0; l->batch_i < l->batch_n;) {
		ev = l->batch[l->batch_i++];
		io = ev.data.ptr;
		if (!io)
			continue;
		/* Freed while it was watched: calling what is there now would be worse. */
		check(io->loop == l);
		dispatch(l, io, ev.events);
		called++;
	}
	l->batch_n = l->batch_i = 0;
	return called;
}

int loop_run(struct loop *l)
{
	int r;

	l->stop = false;
	while (!l->stop) {
		r = loop_once(l, -1);
		if (r < 0)
			return r;
	}
	return l->result;
}

void loop_stop(struct loop *l, int result)
{
	l->stop = true;
	l->result = result;
}

/* ---- signals ---- */

static void loop_on_signal(struct ev_io *io, uint32_t events)
{
	struct ev_signal *s = io->arg;
	struct signalfd_siginfo si;

	/* One each time: the callback may delete the source. Level-triggered, so the rest comes. */
	if (read(s->fd, &si, sizeof(si)) == sizeof(si))
		call_measured(io->loop, "signal", s->cb, s, (int)si.ssi_signo);
}

int ev_signal_add(struct loop *l, struct ev_signal *s, const int *signals, size_t n,
		  void (*cb)(struct ev_signal *, int), void *arg, struct err *err)
{
	sigset_t set;
	int r;

	*s = (struct ev_signal){ .fd = -1, .cb = cb, .arg = arg };
	sigemptyset(&set);
	for (size_t i = 0; i < n; i++)
		sigaddset(&set, signals[i]);
	r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r == 0) {
		s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
		r = s->fd < 0 ? -errno : 0;
	}
	if (r == 0)
		r = ev_io_add(l, &s->io, s->fd, EPOLLIN, loop_on_signal, s);
	if (r < 0) {
		fd_close(&s->fd);
		return err_errno(err, r, "signalfd");
	}
	return 0;
}

void ev_signal_del(struct ev_signal *s)
{
	if (!s->io.loop)
		return;
	ev_io_del(&s->io);
	fd_close(&s->fd);
}

/* ---- children ---- */

static void loop_on_child(struct ev_io *io, uint32_t events)
{
	struct ev_child *c = io->arg;
	struct loop *l = io->loop;
	int status = 0;
	pid_t r;

	do {
		r = waitpid(c->pid, &status, WNOHANG | __WALL);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return;
	ev_child_del(c);
	/* Reaped by somebody else: the status is lost, the death is not. */
	call_measured(l, "child", c->cb, c, r < 0 ? W_EXITCODE(255, 0) : status);
}

int ev_child_add(struct loop *l, struct ev_child *c, pid_t pid, int pidfd,
		 void (*cb)(struct ev_child *, int), void *arg)
{
	int r;

	*c = (struct ev_child){ .pidfd = pidfd, .pid = pid, .cb = cb, .arg = arg };
	r = ev_io_add(l, &c->io, pidfd, EPOLLIN, loop_on_child, c);
	if (r < 0)
		fd_close(&c->pidfd);
	return r;
}

void ev_child_del(struct ev_child *c)
{
	if (!c->io.loop)
		return;
	ev_io_del(&c->io);
	fd_close(&c->pidfd);
}
