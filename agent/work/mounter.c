#include "agent/work/mounter.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"

struct job {
	const struct mounter *m;
	int sock;
};

static int mounter_work(void *arg)
{
	const struct job *j = arg;
	const struct mounter *m = j->m;
	struct err err = { 0 };
	int mnt = -1, r = rootfs_mount(m->disks, m->spec, m->root, &mnt, &err);
	ssize_t n;

	err.code = r;
	n = fdpass_send(j->sock, &err, sizeof(err), &mnt, 1, 0);
	return n < 0 ? (int)n : 0;
}

/* The worker sends what it has to say before it ends. */
static void mounter_on_done(struct worker *w, int result)
{
	struct mounter *m = container_of(w, struct mounter, worker);
	struct err err = { 0 };
	int mnt = -1, r;
	size_t n_fds = 0;
	ssize_t n = fdpass_receive(m->sock, &err, sizeof(err), &mnt, 1, &n_fds, MSG_DONTWAIT);

	fd_close(&m->sock);
	err.msg[sizeof(err.msg) - 1] = '\0';
	r = err.code;
	if (n < 0 && n != -EAGAIN)
		r = err_errno(&err, (int)n, "take the root file system");
	else if (n != (ssize_t)sizeof(err) && result < 0 && result != -EIO)
		r = err_errno(&err, result, "hand over the root file system");
	else if (n != (ssize_t)sizeof(err) || (r == 0 && mnt < 0))
		r = err_set(&err, -EIO, "the process that mounts the disks was killed");
	if (r < 0)
		fd_close(&mnt);
	m->done(m, r, mnt, &err);
}

int mounter_start(struct reaper *r, struct mounter *m, const struct disks *disks,
		  const Agent__Rootfs *spec, const struct rootfs *root,
		  void (*done)(struct mounter *, int, int, const struct err *), struct err *err)
{
	struct job job = { .m = m };
	int sv[2], e;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, -errno, "socketpair");
	*m = (struct mounter){
		.sock = sv[0], .disks = disks, .spec = spec, .root = root, .done = done
	};
	job.sock = sv[1];
	e = worker_start(r, &m->worker, mounter_work, &job, &job.sock, 1, mounter_on_done);
	close(sv[1]);
	if (e == 0)
		return 0;
	fd_close(&m->sock);
	return err_errno(err, e, "a process that mounts the disks");
}

void mounter_stop(struct reaper *r, struct mounter *m)
{
	if (m->worker.child.pid == 0)
		return;
	reaper_del(r, &m->worker.child);
	fd_close(&m->sock);
}
