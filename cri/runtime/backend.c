#include "cri/runtime/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"

static void probe_end(struct backend *b)
{
	ev_timer_del(&b->timer);
	ev_io_del(&b->out);
	fd_close(&b->fd);
	buf_fini(&b->answer);
}

/* {"kvm": {"usable": BOOL, "reason": TEXT, ...}, "qemu": {...}, "auto": NAME} */
static void take_answer(struct backend *b)
{
	json_t *root = json_loadb((const char *)buf_data(&b->answer), buf_len(&b->answer), 0, NULL);
	const char *name = json_string_value(json_object_get(root, "auto"));
	const char *why =
		json_string_value(json_object_get(json_object_get(root, "kvm"), "reason"));

	if (str_eq(name, "kvm") || str_eq(name, "qemu")) {
		(void)snprintf(b->name, sizeof(b->name), "%s", name);
		(void)snprintf(b->reason, sizeof(b->reason), "%s%s",
			       str_eq(name, "kvm") ? "" : "kvm is not usable: ", why ? why : "");
		if (str_eq(name, "kvm"))
			log_info("backend chosen", "backend", b->name, "why", b->reason);
		else
			log_warn("backend auto falls back to QEMU without KVM: " BACKEND_TCG,
				 "backend", b->name, "why", b->reason);
	} else {
		log_warn("no backend works here, pods will not start; see 'husk check'", "kvm",
			 why ? why : "no answer from husk-vmm --probe");
	}
	json_decref(root);
}

static void backend_on_output(struct ev_io *io, uint32_t events)
{
	struct backend *b = io->arg;
	ssize_t n = buf_read_fd(&b->answer, b->fd, BACKEND_ANSWER_MAX);

	if (n > 0 || n == -EAGAIN)
		return;
	if (n == 0)
		take_answer(b);
	probe_end(b);
}

static void backend_on_exit(struct ev_child *c, int status)
{
	/* Its output says what it found; backend_on_output reads it to the end. */
}

static void backend_on_timeout(struct ev_timer *t)
{
	struct backend *b = t->arg;

	log_warn("husk-vmm --probe does not end; each monitor probes for itself");
	(void)pidfd_signal(b->child.pidfd, SIGKILL);
	probe_end(b);
}

static int probe_start(struct backend *b, struct loop *loop, const char *vmm, struct err *err)
{
	cleanup_free char *path = NULL;
	char *argv[] = { (char *)"husk-vmm", (char *)"--probe", NULL };
	cleanup_fd int wr = -1;
	int p[2], pidfd, r;
	struct spawn s;
	pid_t pid;

	r = program_path(vmm, "husk-vmm", &path, err);
	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "make a pipe");
	b->fd = p[0];
	wr = p[1];
	r = fd_set_nonblock(b->fd, true);
	if (r < 0)
		return err_errno(err, r, "make a pipe");
	s = spawn_of(path, argv, OOM_SCORE_WORKER);
	s.fds[1] = wr;
	s.fds[2] = STDERR_FILENO;
	s.n_fds = 3;
	s.die_with_parent = true;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return r;
	r = ev_child_add(loop, &b->child, pid, pidfd, backend_on_exit, b);
	if (r == 0)
		r = ev_io_add(loop, &b->out, b->fd, EPOLLIN, backend_on_output, b);
	if (r == 0)
		r = ev_timer_add(loop, &b->timer, BACKEND_PROBE_MS * NS_PER_MS, backend_on_timeout,
				 b);
	return r < 0 ? err_errno(err, r, "watch husk-vmm --probe") : 0;
}

void backend_probe(struct backend *b, struct loop *loop, const char *vmm)
{
	struct err err = { 0 };

	*b = (struct backend){ .fd = -1 };
	buf_init(&b->answer, BACKEND_ANSWER_MAX);
	if (probe_start(b, loop, vmm, &err) < 0) {
		log_warn("cannot probe the backends", "err", err_text(&err));
		probe_end(b);
	}
}

void backend_fini(struct backend *b)
{
	if (b->answer.max)
		probe_end(b);
	ev_child_del(&b->child);
}

bool backend_fell_back(const struct backend *b, const char *configured)
{
	return str_eq(configured, "auto") && str_eq(b->name, "qemu");
}

const char *backend_name(const struct backend *b, const char *configured)
{
	return str_eq(configured, "auto") && b->name[0] ? b->name : configured;
}
