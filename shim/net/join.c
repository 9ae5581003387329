#include "shim/net/join.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/net/netlink.h"
#include "base/thread/aside.h"
#include "base/util.h"
#include "shim/net/mirror.h"
#include "shim/net/tap.h"

#define READS_MAX 5 /* of a namespace that changes while it is read */

struct join {
	struct aside aside;
	join_done done;
	void *arg;
	char *netns;
	/* The thread's own while it runs. */
	struct mirror mirror;
	int tap;
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

static int join_work(struct aside *a, struct err *err)
{
	struct join *j = container_of(a, struct join, aside);
	cleanup_netlink struct netlink nl = { .fd = -1 };
	cleanup_fd int tap = -1;
	int index = 0, r = enter(j->netns, err);

	if (r == 0)
		r = read_all(&j->mirror, err);
	if (r < 0 || !j->mirror.ifindex)
		return r;
	r = netlink_open(&nl);
	if (r < 0)
		return err_errno(err, r, "netlink");
	r = tap_make(&nl, j->mirror.iface.mtu, &tap, &index, err);
	if (r == 0)
		r = tap_redirect(&nl, j->mirror.ifindex, index, err);
	if (r == 0)
		j->tap = take_fd(&tap);
	return r;
}

/* ---- on the loop ---- */

static void join_work_done(struct aside *a, int code, const struct err *err)
{
	struct join *j = container_of(a, struct join, aside);
	bool some = code == 0 && j->mirror.ifindex;
	struct err why = *err;

	if (code < 0)
		(void)err_wrap(&why, code, "the pod's network");
	j->done(code, &why, take_fd(&j->tap), some ? &j->mirror.iface : NULL, j->arg);
}

int join_start(struct loop *l, const char *netns, join_done done, void *arg, struct join **ret,
	       struct err *err)
{
	struct join *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_nomem(err);
	j->done = done;
	j->arg = arg;
	j->tap = -1;
	mirror_init(&j->mirror);
	j->aside.work = join_work;
	j->aside.done = join_work_done;
	j->netns = strdup(netns);
	r = j->netns ? aside_start(&j->aside, l, err) : err_nomem(err);
	if (r < 0) {
		join_free(j);
		return err_wrap(err, r, "the pod's network");
	}
	*ret = j;
	return 0;
}

void join_free(struct join *j)
{
	if (!j)
		return;
	aside_stop(&j->aside);
	fd_close(&j->tap);
	mirror_fini(&j->mirror);
	free(j->netns);
	free(j);
}
