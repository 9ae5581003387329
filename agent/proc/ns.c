#include "agent/proc/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/proc/caps.h"
#include "agent/rootfs/mnt.h"
#include "agent/rootfs/mounts.h"
#include "base/util.h"

int ns_init(struct pidns *n, struct reaper *reaper, const char *run_dir, struct err *err)
{
	*n = (struct pidns){ .reaper = reaper, .run_dir = run_dir, .pod = -1 };
	n->own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	return n->own < 0 ? err_errno(err, -errno, "/proc/self/ns/pid") : 0;
}

void ns_fini(struct pidns *n)
{
	reaper_del(n->reaper, &n->pause);
	fd_close(&n->pod);
	fd_close(&n->own);
}

pid_t ns_clone(struct pidns *n, int ns, const struct clone_job *job, int *ret_pidfd)
{
	pid_t pid;

	if (ns >= 0 && setns(ns, CLONE_NEWPID) < 0)
		return -errno;
	pid = clone_process(job, ret_pidfd);
	if (pid == 0)
		return 0;
	/* Going back to our own cannot fail; if it did, all that follows would be born in the wrong
	 * place. */
	if (ns >= 0 && setns(n->own, CLONE_NEWPID) < 0)
		_exit(1);
	return pid;
}

/* Nothing of the guest may be reachable through the pause process: an empty root, no descriptor, no
 * capability. */
noreturn_fn static void pause_run(const char *run_dir)
{
	static struct user nobody; /* the list of groups is large */
	static const struct mnt_opt opts[] = { { "source", "tmpfs" }, { "size", "0" } };
	cleanup_free char *place = str_fmt("%s/rootfs", run_dir);
	const char *what;
	sigset_t all;
	int root = -1;

	nobody.uid = nobody.gid = 65534;
	(void)prctl(PR_SET_NAME, "pause", 0, 0, 0);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (!place || unshare(CLONE_NEWCGROUP) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mnt_new("tmpfs", opts, ARRAY_SIZE(opts), MOUNT_ATTR_RDONLY, &root, NULL) < 0 ||
	    mnt_attach_path(root, place) < 0 || mounts_enter(root, NULL) < 0 ||
	    close_range(0, ~0u, 0) < 0 || caps_become(&nobody, NULL, &what) < 0)
		_exit(1);
	/* Our children are the orphans of the namespace. */
	signal(SIGCHLD, SIG_IGN);
	sigfillset(&all);
	for (;;)
		(void)sigwaitinfo(&all, NULL);
}

static void ns_on_pause_exit(struct child *c, int status)
{
	struct pidns *n = container_of(c, struct pidns, pause);

	fd_close(&n->pod);
}

int ns_pod_pid(struct pidns *n, int *ret_ns, struct err *err)
{
	char path[48]; /* "/proc/" + pid + "/ns/pid" */
	const struct clone_job job = { .flags = CLONE_NEWPID | CLONE_NEWNS, .cgroup = -1 };
	pid_t pid;

	if (n->pod < 0) {
		pid = clone_process(&job, NULL);
		if (pid < 0)
			return err_errno(err, pid, "the pod's pid namespace");
		if (pid == 0)
			pause_run(n->run_dir);
		reaper_add(n->reaper, &n->pause, pid, ns_on_pause_exit, NULL);
		snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)pid);
		n->pod = open(path, O_RDONLY | O_CLOEXEC);
		if (n->pod < 0)
			return err_errno(err, -errno, "the pod's pid namespace");
	}
	*ret_ns = n->pod;
	return 0;
}
