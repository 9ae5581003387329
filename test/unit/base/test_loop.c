#include "test/lib/aborts.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/util.h"

extern const char __executable_start; /* of the linker */

static struct loop *l;

static int set_up(void **state)
{
	struct err e = { 0 };

	return loop_new(&l, &e);
}

static int tear_down(void **state)
{
	loop_free(l);
	return 0;
}

/* ---- timers ---- */

struct tick {
	struct ev_timer t;
	int id, again;
	struct ev_timer *victim;
};
static int order[64], n_order;

static void on_tick(struct ev_timer *t)
{
	struct tick *k = t->arg;

	assert_null(t->loop);
	order[n_order++] = k->id;
	if (k->victim)
		ev_timer_del(k->victim);
	if (k->again-- > 0)
		assert_int_equal(ev_timer_add(l, t, 0, on_tick, k), 0);
}

static void on_end(struct ev_timer *t)
{
	loop_stop(l, 42);
}

static void timers_in_order(void **state)
{
	static const int ms[] = { 9, 3, 7, 1, 8, 2, 6, 4, 5 };
	struct tick k[9] = { 0 };
	struct ev_timer end = { 0 };

	n_order = 0;
	for (int i = 0; i < 9; i++) {
		k[i].id = ms[i];
		assert_int_equal(
			ev_timer_add(l, &k[i].t, (uint64_t)ms[i] * NS_PER_MS, on_tick, &k[i]), 0);
	}
	/* Moved: later, and earlier. */
	assert_int_equal(ev_timer_add(l, &k[1].t, 12 * NS_PER_MS, on_tick, &k[1]), 0);
	assert_int_equal(ev_timer_add(l, &k[0].t, 0, on_tick, &k[0]), 0);
	ev_timer_del(&k[2].t);
	ev_timer_del(&k[2].t);
	assert_int_equal(ev_timer_add(l, &end, 20 * NS_PER_MS, on_end, NULL), 0);
	assert_int_equal(loop_run(l), 42);
	static const int want[] = { 9, 1, 2, 4, 5, 6, 8, 3 };
	assert_int_equal(n_order, ARRAY_SIZE(want));
	assert_memory_equal(order, want, sizeof(want));
}

static void timer_is_not_early(void **state)
{
	struct ev_timer end = { 0 };
	uint64_t t0 = now_mono_ns();

	assert_int_equal(ev_timer_add(l, &end, 15 * NS_PER_MS, on_end, NULL), 0);
	assert_int_equal(loop_run(l), 42);
	assert_true(now_mono_ns() - t0 >= 15 * NS_PER_MS);
}

static void timer_deletes_another_due_one(void **state)
{
	struct tick a = { .id = 1 }, b = { .id = 2 };

	n_order = 0;
	a.victim = &b.t;
	b.victim = &a.t;
	assert_int_equal(ev_timer_add(l, &a.t, 0, on_tick, &a), 0);
	assert_int_equal(ev_timer_add(l, &b.t, 0, on_tick, &b), 0);
	while (loop_once(l, 5) > 0)
		;
	assert_int_equal(n_order, 1);
	assert_int_equal(order[0], 1);
}

static void timer_that_adds_itself_does_not_starve(void **state)
{
	struct tick a = { .id = 1, .again = 20 };
	int rounds = 0;

	n_order = 0;
	assert_int_equal(ev_timer_add(l, &a.t, 0, on_tick, &a), 0);
	while (a.t.loop) {
		assert_true(loop_once(l, 100) >= 0);
		rounds++;
	}
	assert_int_equal(n_order, 21);
	assert_int_equal(rounds, 21);
}

static void timer_far_away(void **state)
{
	struct ev_timer t = { 0 }, end = { 0 };

	assert_int_equal(ev_timer_add(l, &t, UINT64_MAX, on_tick, NULL), 0);
	assert_int_equal(loop_once(l, 5), 0);
	assert_int_equal(ev_timer_add(l, &end, NS_PER_MS, on_end, NULL), 0);
	assert_int_equal(loop_run(l), 42);
	assert_non_null(t.loop);
	ev_timer_del(&t);
}

static void many_timers(void **state)
{
	struct tick *k = calloc(5000, sizeof(*k));
	uint64_t last = 0;

	srand(2);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(ev_timer_add(l, &k[i].t, (uint64_t)(1 + rand() % 1000) * NS_PER_S,
					      on_tick, &k[i]),
				 0);
	for (int i = 0; i < 5000; i += 3)
		ev_timer_del(&k[i].t);
	for (int i = 0; i < 5000; i++)
		if (k[i].t.loop)
			last = MAX_OF(last, k[i].t.slot);
	/* The slots are dense: 5,000 less every third. */
	assert_int_equal(last, 3332);
	for (int i = 0; i < 5000; i++)
		ev_timer_del(&k[i].t);
	assert_int_equal(loop_once(l, 0), 0);
	free(k);
}

/* ---- descriptors ---- */

struct watched {
	struct ev_io io;
	int calls;
	struct watched *victim;
	bool free_self;
};

static void on_io(struct ev_io *io, uint32_t events)
{
	struct watched *w = io->arg;

	w->calls++;
	if (w->victim) {
		ev_io_del(&w->victim->io);
		memset(&w->victim->io, 0, sizeof(w->victim->io));
	}
	if (w->free_self) {
		ev_io_del(io);
		free(w);
	}
}

static void io_level_triggered(void **state)
{
	struct watched w = { 0 };
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(ev_io_add(l, &w.io, sv[0], EPOLLIN, on_io, &w), 0);
	assert_int_equal(loop_once(l, 0), 0);
	assert_int_equal(write(sv[1], "x", 1), 1);
	assert_int_equal(loop_once(l, 0), 1);
	assert_int_equal(loop_once(l, 0), 1);
	assert_int_equal(ev_io_set(&w.io, 0), 0);
	assert_int_equal(loop_once(l, 0), 0);
	assert_int_equal(ev_io_set(&w.io, EPOLLIN), 0);
	assert_int_equal(loop_once(l, 0), 1);
	assert_int_equal(ev_io_set(&w.io, 0), 0);
	/* A hang-up is told even to one who asked for nothing. */
	(void)close(sv[1]);
	assert_int_equal(loop_once(l, 0), 1);
	ev_io_del(&w.io);
	ev_io_del(&w.io);
	assert_int_equal(loop_once(l, 0), 0);
	(void)close(sv[0]);
	assert_int_equal(ev_io_add(l, &w.io, sv[0], EPOLLIN, on_io, &w), -EBADF);
	assert_null(w.io.loop);
	assert_int_equal(w.calls, 4);
}

static void io_deleted_inside_the_batch(void **state)
{
	struct watched w[2] = { 0 };
	int a[2], b[2];

	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	assert_int_equal(ev_io_add(l, &w[0].io, a[0], EPOLLIN, on_io, &w[0]), 0);
	assert_int_equal(ev_io_add(l, &w[1].io, b[0], EPOLLIN, on_io, &w[1]), 0);
	w[0].victim = &w[1];
	w[1].victim = &w[0];
	assert_int_equal(write(a[1], "x", 1), 1);
	assert_int_equal(write(b[1], "x", 1), 1);
	assert_int_equal(loop_once(l, 0), 1);
	assert_int_equal(w[0].calls + w[1].calls, 1);
	ev_io_del(&w[0].io);
	ev_io_del(&w[1].io);
	for (int i = 0; i < 2; i++) {
		(void)close(a[i]);
		(void)close(b[i]);
	}
}

static void io_owner_frees_itself(void **state)
{
	struct watched *w = calloc(1, sizeof(*w));
	int p[2];

	w->free_self = true;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(ev_io_add(l, &w->io, p[0], EPOLLIN, on_io, w), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(loop_once(l, 0), 1);
	assert_int_equal(loop_once(l, 0), 0);
	(void)close(p[0]);
	(void)close(p[1]);
}

/* ---- posts ---- */

#define POSTERS 4
#define POSTS 5000

static int posted[POSTERS], posts_total;

static void on_post(void *arg)
{
	const uint64_t v = (uint64_t)(uintptr_t)arg;

	/* In the order of their thread. */
	assert_int_equal(posted[v >> 32]++, (int)(v & 0xffffffff));
	if (++posts_total == POSTERS * POSTS)
		loop_stop(l, 7);
}

static void *poster(void *arg)
{
	uint64_t id = (uint64_t)(uintptr_t)arg;

	for (uint64_t i = 0; i < POSTS; i++)
		if (loop_post(l, on_post, (void *)(uintptr_t)(id << 32 | i)) < 0)
			return arg;
	return NULL;
}

static void posts_from_threads(void **state)
{
	pthread_t t[POSTERS];

	posts_total = 0;
	memset(posted, 0, sizeof(posted));
	for (uintptr_t i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, poster, (void *)i), 0);
	assert_int_equal(loop_run(l), 7);
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
}

static int nested;

static void post_again(void *arg)
{
	if (++nested < 3)
		assert_int_equal(loop_post(l, post_again, NULL), 0);
}

static void post_inside_a_post_comes_later(void **state)
{
	nested = 0;
	assert_int_equal(loop_post(l, post_again, NULL), 0);
	assert_int_equal(nested, 0);
	for (int i = 1; i <= 3; i++) {
		assert_int_equal(loop_once(l, 0), 1);
		assert_int_equal(nested, i);
	}
	assert_int_equal(loop_once(l, 0), 0);
	/* Not run at the end: freed without a leak. */
	assert_int_equal(loop_post(l, post_again, NULL), 0);
}

/* ---- signals and children ---- */

static int signals_seen[2];

static void on_signal(struct ev_signal *s, int signo)
{
	signals_seen[signo == SIGUSR2]++;
	if (signo == SIGUSR2)
		ev_signal_del(s);
}

static void signals(void **state)
{
	static const int which[] = { SIGUSR1, SIGUSR2 };
	struct ev_signal s;
	struct err e = { 0 };
	sigset_t set;

	assert_ok(ev_signal_add(l, &s, which, 2, on_signal, NULL, &e), &e);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	assert_int_equal(kill(getpid(), SIGUSR2), 0);
	while (loop_once(l, 0) > 0)
		;
	assert_int_equal(signals_seen[0], 1);
	assert_int_equal(signals_seen[1], 1);
	ev_signal_del(&s);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

static int statuses[2], n_children;

static void on_child(struct ev_child *c, int status)
{
	assert_int_equal(c->pidfd, -1);
	*(int *)c->arg = status;
	if (++n_children == 2)
		loop_stop(l, 1);
}

static void start(const char *script, struct ev_child *c, int *status)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)script, NULL };
	struct spawn s = spawn_of("/bin/sh", argv, OOM_SCORE_KEEP);
	struct err e = { 0 };
	int pidfd;
	pid_t pid;

	assert_ok(spawn_run(&s, &pid, &pidfd, &e), &e);
	assert_int_equal(ev_child_add(l, c, pid, pidfd, on_child, status), 0);
}

static void children(void **state)
{
	struct ev_child c[2];

	n_children = 0;
	start("exit 3", &c[0], &statuses[0]);
	start("kill -9 $$", &c[1], &statuses[1]);
	assert_int_equal(loop_run(l), 1);
	assert_true(WIFEXITED(statuses[0]));
	assert_int_equal(WEXITSTATUS(statuses[0]), 3);
	assert_true(WIFSIGNALED(statuses[1]));
	assert_int_equal(WTERMSIG(statuses[1]), SIGKILL);
	/* Both were reaped. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void child_reaped_by_another_is_no_success(void **state)
{
	struct ev_child c;
	int status = -1;

	n_children = 1;
	start("exit 0", &c, &status);
	assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
	assert_int_equal(loop_run(l), 1);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 255);
}

static void child_no_longer_watched(void **state)
{
	struct ev_child c;
	int status = -1;

	n_children = 0;
	start("exit 5", &c, &status);
	ev_child_del(&c);
	ev_child_del(&c);
	assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
	assert_int_equal(WEXITSTATUS(status), 5);
	assert_int_equal(loop_once(l, 0), 0);
	assert_int_equal(n_children, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* ---- misuse ---- */

/* In a child with a loop of its own: epoll would be shared with ours. */
struct sources {
	struct loop *loop;
	struct ev_io io;
	struct ev_timer timer;
	int fd;
	void (*bug)(struct sources *s);
};

static void on_nothing(struct ev_io *io, uint32_t events)
{
}

static void add_twice(struct sources *s)
{
	(void)!ev_io_add(s->loop, &s->io, s->fd, EPOLLIN, on_nothing, NULL);
	(void)!ev_io_add(s->loop, &s->io, s->fd, EPOLLIN, on_nothing, NULL);
}

static void set_what_is_not_added(struct sources *s)
{
	(void)!ev_io_set(&s->io, EPOLLIN);
}

/* Its memory is used for something else while the loop watches it. */
static void overwritten_io(struct sources *s)
{
	(void)!ev_io_add(s->loop, &s->io, s->fd, EPOLLIN, on_nothing, NULL);
	memset(&s->io, 0x55, sizeof(s->io));
	(void)!loop_once(s->loop, 0);
}

static void overwritten_timer(struct sources *s)
{
	(void)!ev_timer_add(s->loop, &s->timer, NS_PER_S, on_end, NULL);
	s->timer.slot = 12345;
	ev_timer_del(&s->timer);
}

static void io_outlives_the_loop(struct sources *s)
{
	(void)!ev_io_add(s->loop, &s->io, s->fd, EPOLLIN, on_nothing, NULL);
	loop_free(s->loop);
}

static void timer_outlives_the_loop(struct sources *s)
{
	(void)!ev_timer_add(s->loop, &s->timer, NS_PER_S, on_end, NULL);
	loop_free(s->loop);
}

static void with_a_loop(void *arg)
{
	struct sources *s = arg;

	if (loop_new(&s->loop, NULL) == 0)
		s->bug(s);
}

static void misuse_ends_the_process(void **state)
{
	static void (*const bugs[])(struct sources *) = {
		add_twice,	   set_what_is_not_added, overwritten_io,
		overwritten_timer, io_outlives_the_loop,  timer_outlives_the_loop,
	};
	struct sources s = { 0 };
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	s.fd = p[0];
	for (size_t i = 0; i < ARRAY_SIZE(bugs); i++) {
		s.bug = bugs[i];
		assert_aborts(with_a_loop, &s, "at=\"loop.c:");
	}
	(void)close(p[0]);
	(void)close(p[1]);
}

/* ---- the budget of a callback ---- */

static void on_slow_timer(struct ev_timer *t)
{
	(void)usleep(25000);
}

static void on_slow_io(struct ev_io *io, uint32_t events)
{
	char c;

	assert_int_equal(read(io->fd, &c, 1), 1);
	(void)usleep(25000);
}

static void on_slow_child(struct ev_child *c, int status)
{
	(void)usleep(25000);
	loop_stop(l, 0);
}

static void on_slow_post(void *arg)
{
	(void)usleep(25000);
}

/* One of each kind; what the log said. */
static const char *slow_callbacks(const char *budget)
{
	static char text[8192];
	struct ev_timer slow = { 0 };
	struct ev_io io = { 0 };
	struct ev_child child = { 0 };
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"sleep 0.1", NULL };
	struct spawn s = spawn_of("/bin/sh", argv, OOM_SCORE_KEEP);
	struct err e = { 0 };
	int log_fds[2], p[2], pidfd;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(log_fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	log_init("prog", log_fds[1], LOG_INFO, false);
	assert_int_equal(setenv("HUSK_LOOP_BUDGET_MS", budget, 1), 0);
	loop_free(l);
	assert_ok(loop_new(&l, &e), &e);
	assert_int_equal(unsetenv("HUSK_LOOP_BUDGET_MS"), 0);
	assert_int_equal(ev_timer_add(l, &slow, 0, on_slow_timer, NULL), 0);
	assert_int_equal(ev_io_add(l, &io, p[0], EPOLLIN, on_slow_io, NULL), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(loop_post(l, on_slow_post, NULL), 0);
	assert_ok(spawn_run(&s, &pid, &pidfd, &e), &e);
	assert_int_equal(ev_child_add(l, &child, pid, pidfd, on_slow_child, NULL), 0);
	assert_int_equal(loop_run(l), 0);
	ev_io_del(&io);
	n = read(log_fds[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	log_init("prog", STDERR_FILENO, LOG_INFO, false);
	for (int i = 0; i < 2; i++) {
		(void)close(log_fds[i]);
		(void)close(p[i]);
	}
	return text;
}

static void slow_callbacks_are_named(void **state)
{
	const char *text = slow_callbacks("20");
	char at[64];

	assert_text(text, "a callback took long source=timer callback=0x");
	assert_text(text, "source=post callback=0x");
	assert_text(text, "source=descriptor callback=0x");
	assert_text(text, "source=child callback=0x");
	(void)snprintf(at, sizeof(at), "source=timer callback=%#lx ms=",
		       (unsigned long)((uintptr_t)on_slow_timer - (uintptr_t)&__executable_start));
	assert_text(text, at);
	/* The timers together are none that is too slow. */
	assert_string_equal(slow_callbacks("10000"), "");
	assert_string_equal(slow_callbacks("0"), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(timers_in_order),
		T(timer_is_not_early),
		T(timer_deletes_another_due_one),
		T(timer_that_adds_itself_does_not_starve),
		T(timer_far_away),
		T(many_timers),
		T(io_level_triggered),
		T(io_deleted_inside_the_batch),
		T(io_owner_frees_itself),
		T(posts_from_threads),
		T(post_inside_a_post_comes_later),
		T(signals),
		T(children),
		T(child_reaped_by_another_is_no_success),
		T(child_no_longer_watched),
		T(slow_callbacks_are_named),
		cmocka_unit_test(misuse_ends_the_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
