#include "shim/net/join.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/net/netlink.h"
#include "base/util.h"
#include "shim/net/mirror.h"
#include "shim/net/tap.h"

#define READS_MAX 5 /* of a namespace that changes while it is read */

struct join {
	struct ev_io io;
	int event; /* owned eventfd: the thread has done its work */
	pthread_t thread;
	bool runs;
	join_done done;
	void *arg;
	char *netns;
	/* The thread's own until the event. */
	struct mirror mirror;
	int tap, code;
	struct err err;
};

/* ---- on the thread ---- */

/* The namespace of this thread alone, from now on. */
static int enter(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat theirs, ours;

	if (fd < 0)
		return err_errno(err, -errno, "%s", path);
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return err_set(err, -EINVAL, "%s is not a network namespace", path);
	if (fstat(fd, &theirs) < 0 || stat("/proc/self/ns/net", &ours) < 0)
		return err_errno(err, -errno, "%s", path);
	if (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino)
		return err_set(err, -EINVAL, "%s is the host's own network namespace", path);
	return setns(fd, CLONE_NEWNET) < 0 ? err_errno(err, -errno, "enter %s", path) : 0;
}

static int dump(struct netlink *nl, uint16_t type, const void *head, size_t n, struct mirror *m,
		struct err *err)
{
	struct nlmsg q;
	int r;

	nlmsg_begin(&q, type, 0, head, n);
	r = netlink_dump(nl, &q, mirror_take, m);
	return r < 0 && !err->code ? err_errno(err, r, "read the network namespace") : r;
}

static int read_once(struct mirror *m, struct err *err)
{
	cleanup_netlink struct netlink nl = { .fd = -1 };
	const struct ifinfomsg link = { 0 };
	const struct ifaddrmsg address = { 0 };
	const struct rtmsg route = { 0 };
	const struct ndmsg neighbour = { 0 };
	int r = netlink_open(&nl);

	*err = (struct err){ 0 };
	m->err = err;
	if (r < 0)
		return err_errno(err, r, "netlink");
	r = dump(&nl, RTM_GETLINK, &link, sizeof(link), m, err);
	if (r == 0)
		r = dump(&nl, RTM_GETADDR, &address, sizeof(address), m, err);
	if (r == 0)
		r = dump(&nl, RTM_GETROUTE, &route, sizeof(route), m, err);
	if (r == 0)
		r = dump(&nl, RTM_GETNEIGH, &neighbour, sizeof(neighbour), m, err);
	m->err = NULL;
	return r;
}

static int read_all(struct mirror *m, struct err *err)
{
	int r = read_once(m, err);

	for (int i = 1; r == -EAGAIN && i < READS_MAX; i++) {
		mirror_fini(m);
		mirror_init(m);
		r = read_once(m, err);
	}
	if (r == 0)
		mirror_finish(m);
	return r;
}

static int work(struct join *j)
{
	cleanup_netlink struct netlink nl = { .fd = -1 };
	cleanup_fd int tap = -1;
	int index = 0, r = enter(j->netns, &j->err);

	if (r == 0)
		r = read_all(&j->mirror, &j->err);
	if (r < 0 || !j->mirror.ifindex)
		return r;
	r = netlink_open(&nl);
	if (r < 0)
		return err_errno(&j->err, r, "netlink");
	r = tap_make(&nl, j->mirror.iface.mtu, &tap, &index, &j->err);
	if (r == 0)
		r = tap_redirect(&nl, j->mirror.ifindex, index, &j->err);
	if (r == 0)
		j->tap = take_fd(&tap);
	return r;
}

static void *join_thread(void *arg)
{
	struct join *j = arg;
	const uint64_t one = 1;

	j->code = work(j);
	(void)!write(j->event, &one, sizeof(one));
	return NULL;
}

/* ---- on the loop ---- */

static void join_on_event(struct ev_io *io, uint32_t events)
{
	struct join *j = io->arg;
	bool some;

	ev_io_del(&j->io);
	pthread_join(j->thread, NULL);
	j->runs = false;
	some = j->code == 0 && j->mirror.ifindex;
	if (j->code < 0)
		(void)err_wrap(&j->err, j->code, "the pod's network");
	j->done(j->code, &j->err, take_fd(&j->tap), some ? &j->mirror.iface : NULL, j->arg);
}

int join_start(struct loop *l, const char *netns, join_done done, void *arg, struct join **ret,
	       struct err *err)
{
	struct join *j = calloc(1, sizeof(*j));
	int r = 0;

	if (!j)
		return err_nomem(err);
	j->done = done;
	j->arg = arg;
	j->tap = -1;
	mirror_init(&j->mirror);
	j->netns = strdup(netns);
	j->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!j->netns || j->event < 0)
		r = j->netns ? -errno : -ENOMEM;
	if (r == 0)
		r = ev_io_add(l, &j->io, j->event, EPOLLIN, join_on_event, j);
	if (r == 0)
		r = -pthread_create(&j->thread, NULL, join_thread, j);
	if (r < 0) {
		join_free(j);
		return err_errno(err, r, "the pod's network");
	}
	j->runs = true;
	*ret = j;
	return 0;
}

void join_free(struct join *j)
{
	if (!j)
		return;
	if (j->runs)
		pthread_join(j->thread, NULL);
	ev_io_del(&j->io);
	fd_close(&j->event);
	fd_close(&j->tap);
	mirror_fini(&j->mirror);
	free(j->netns);
	free(j);
}
