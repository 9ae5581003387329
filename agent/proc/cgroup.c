#include "agent/proc/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proc/devfilter.h"
#include "agent/proc/procfs.h"
#include "agent/limits.h"
#include "agent/rootfs/path.h"
#include "base/util.h"

#define CONTROLLERS_MAX 256 /* bytes of cgroup.controllers */
#define PIDS_CHUNK (16 * KIB)
#define CPU_MAX "cpu.max"

/* All controllers of `dir` for its children. */
static int hand_down(int dir)
{
	cleanup_fd int fd = openat(dir, "cgroup.controllers", O_RDONLY | O_CLOEXEC);
	char have[CONTROLLERS_MAX], want[2 * CONTROLLERS_MAX];
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		return -errno;
	r = read(fd, have, sizeof(have) - 1);
	if (r < 0)
		return -errno;
	have[r] = '\0';
	for (const char *p = have; *p;) {
		size_t word = strcspn(p, " \n");

		if (word > 0) {
			want[n++] = '+';
			memcpy(want + n, p, word);
			n += word;
			want[n++] = ' ';
		}
		p += word + strspn(p + word, " \n");
	}
	if (n == 0)
		return 0;
	want[n - 1] = '\0';
	return write_at(dir, "cgroup.subtree_control", want);
}

static void cgroup_on_inotify(struct ev_io *io, uint32_t events)
{
	struct cgroups *c = io->arg;
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(io->fd, buf, sizeof(buf));

	for (ssize_t off = 0; off + (ssize_t)sizeof(struct inotify_event) <= n;) {
		const struct inotify_event *ev = (const void *)(buf + off);

		if (ev->mask & IN_MODIFY)
			c->on_change(ev->wd, c->arg);
		off += (ssize_t)(sizeof(*ev) + ev->len);
	}
}

int cgroups_init(struct cgroups *c, struct loop *l, const char *root,
		 void (*on_change)(int, void *), void *arg, struct err *err)
{
	cleanup_fd int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	*c = (struct cgroups){ .pod = -1, .dev_prog = -1, .inotify = -1 };
	c->on_change = on_change;
	c->arg = arg;
	if (fd < 0)
		return err_errno(err, -errno, "%s", root);
	r = hand_down(fd);
	if (r < 0)
		return err_errno(err, r, "%s: controllers", root);
	if (mkdirat(fd, "pod", 0755) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "%s/pod", root);
	c->pod = openat(fd, "pod", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->pod < 0)
		return err_errno(err, -errno, "%s/pod", root);
	r = hand_down(c->pod);
	if (r < 0) {
		err_errno(err, r, "%s/pod: controllers", root);
		goto fail;
	}
	c->pod_path = str_fmt("%s/pod", root);
	if (!c->pod_path) {
		r = err_nomem(err);
		goto fail;
	}
	c->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = c->inotify < 0 ? -errno : 0;
	if (r == 0)
		r = ev_io_add(l, &c->io, c->inotify, EPOLLIN, cgroup_on_inotify, c);
	if (r == 0)
		return 0;
	err_errno(err, r, "watch OOM kills");
fail:
	cgroups_fini(c);
	return r;
}

void cgroups_fini(struct cgroups *c)
{
	ev_io_del(&c->io);
	fd_close(&c->inotify);
	fd_close(&c->dev_prog);
	fd_close(&c->pod);
	free_ptr(&c->pod_path);
}

static int watch(struct cgroups *c, const char *id, int *ret_wd, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s/memory.events", c->pod_path, id);
	int wd;

	if (!path)
		return err_nomem(err);
	wd = inotify_add_watch(c->inotify, path, IN_MODIFY);
	if (wd < 0 && errno != ENOENT)
		return err_errno(err, -errno, "watch %s", path);
	*ret_wd = wd;
	return 0;
}

static int set_up(struct cgroups *c, int fd, const Agent__CreateContainerRequest *req,
		  struct err *err)
{
	char number[24];
	int r;

	/* What the container may do below, where its cgroup is writable for it. */
	snprintf(number, sizeof(number), "%d", AGENT_CGROUP_DEPTH);
	r = write_at(fd, "cgroup.max.depth", number);
	snprintf(number, sizeof(number), "%d", AGENT_CGROUPS_MAX);
	if (r == 0)
		r = write_at(fd, "cgroup.max.descendants", number);
	if (r < 0)
		return err_errno(err, r, "limits of nested cgroups");
	for (size_t i = 0; i < req->n_cgroup; i++) {
		r = write_at(fd, req->cgroup[i]->key, req->cgroup[i]->value);
		/* A kernel without swap honours every limit of it; each CRI client sends one. */
		if (r == -ENOENT && str_starts(req->cgroup[i]->key, "memory.swap."))
			r = 0;
		/* It is valid, as we know now; cgroup_limit_cpu sets it again. */
		if (r == 0 && str_eq(req->cgroup[i]->key, CPU_MAX))
			r = write_at(fd, CPU_MAX, "max");
		if (r == -ENOENT || r == -EACCES)
			return err_set(err, -EOPNOTSUPP, "%s: the guest kernel has no such file",
				       req->cgroup[i]->key);
		if (r < 0)
			return err_errno(err, r, "%s = \"%.100s\"", req->cgroup[i]->key,
					 req->cgroup[i]->value);
	}
	if (req->privileged)
		return 0;
	if (c->dev_prog < 0) {
		r = devfilter_load(&c->dev_prog, err);
		if (r < 0)
			return r;
	}
	return devfilter_attach(c->dev_prog, fd, err);
}

int cgroup_create(struct cgroups *c, const Agent__CreateContainerRequest *req, int *ret_fd,
		  int *ret_wd, struct err *err)
{
	cleanup_fd int fd = -1;
	int r;

	if (mkdirat(c->pod, req->id, 0755) < 0)
		return err_errno(err, -errno, "cgroup %s", req->id);
	fd = openat(c->pod, req->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? err_errno(err, -errno, "open") : set_up(c, fd, req, err);
	if (r == 0)
		r = watch(c, req->id, ret_wd, err);
	if (r < 0) {
		(void)unlinkat(c->pod, req->id, AT_REMOVEDIR);
		return err_wrap(err, r, "cgroup %s", req->id);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

static const char *cpu_limit(const Agent__CreateContainerRequest *req)
{
	const char *value = NULL; /* the last one wins, as with all files */

	for (size_t i = 0; i < req->n_cgroup; i++)
		if (str_eq(req->cgroup[i]->key, CPU_MAX))
			value = req->cgroup[i]->value;
	return value;
}

bool cgroup_limits_cpu(const Agent__CreateContainerRequest *req)
{
	return cpu_limit(req) != NULL;
}

int cgroup_limit_cpu(int fd, const Agent__CreateContainerRequest *req, struct err *err)
{
	const char *value = cpu_limit(req);
	int r = value ? write_at(fd, CPU_MAX, value) : 0;

	return r < 0 ? err_errno(err, r, CPU_MAX " = \"%.100s\"", value) : 0;
}

void cgroup_unwatch(struct cgroups *c, int wd)
{
	if (wd >= 0)
		(void)inotify_rm_watch(c->inotify, wd);
}

int cgroup_kill(int fd)
{
	return write_at(fd, "cgroup.kill", "1");
}

void cgroup_take_out(const char *root, pid_t pid)
{
	cleanup_free char *path = str_fmt("%s/cgroup.procs", root);
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	if (path)
		(void)!write_at(AT_FDCWD, path, text);
}

uint64_t cgroup_oom_kills(int fd)
{
	uint64_t n;

	return read_number_at(fd, "memory.events", "oom_kill", &n) < 0 ? 0 : n;
}

/* ---- walking over nested cgroups ---- */

typedef int (*visit_fn)(int parent, const char *name, int fd, void *arg);

/* Children first, each as (directory it is in, name, descriptor). Depth is bounded by the limit
 * that cgroup_create set, and here once more. */
static int walk(int dir, int depth, visit_fn visit, void *arg)
{
	cleanup_fd int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *d;
	DIR *list;
	int r = 0;

	if (fd < 0)
		return -errno;
	list = fdopendir(fd);
	if (!list)
		return -errno;
	(void)take_fd(&fd);
	while (r == 0 && (d = readdir(list))) {
		cleanup_fd int sub = -1;

		if (d->d_type != DT_DIR || str_eq(d->d_name, ".") || str_eq(d->d_name, ".."))
			continue;
		sub = openat(dir, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0) {
			r = errno == ENOENT ? 0 : -errno;
			continue;
		}
		if (depth < AGENT_CGROUP_DEPTH)
			r = walk(sub, depth + 1, visit, arg);
		if (r == 0)
			r = visit(dir, d->d_name, sub, arg);
	}
	closedir(list);
	return r;
}

struct pids {
	pid_t *list;
	size_t n, cap;
};

static int add_pid(struct pids *p, pid_t pid)
{
	if (p->n == AGENT_PIDS_MAX)
		return -E2BIG;
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 64;
		pid_t *list = reallocarray(p->list, cap, sizeof(*list));

		if (!list)
			return -ENOMEM;
		p->list = list;
		p->cap = cap;
	}
	p->list[p->n++] = pid;
	return 0;
}

static int cgroup_read_pids(int parent, const char *name, int dir, void *arg)
{
	cleanup_fd int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	char buf[PIDS_CHUNK];
	pid_t pid = 0;
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0)
			return errno == ENODEV || errno == EOPNOTSUPP ? 0 : -errno;
		for (ssize_t i = 0; r == 0 && i < n; i++) {
			if (buf[i] >= '0' && buf[i] <= '9') {
				pid = pid * 10 + (buf[i] - '0');
			} else if (pid > 0) {
				r = add_pid(arg, pid);
				pid = 0;
			}
		}
	}
	return r;
}

int cgroup_pids(int fd, pid_t **ret, size_t *ret_n, struct err *err)
{
	struct pids p = { 0 };
	int r = cgroup_read_pids(-1, NULL, fd, &p);

	if (r == 0)
		r = walk(fd, 0, cgroup_read_pids, &p);
	if (r < 0) {
		free(p.list);
		return r == -E2BIG ? err_set(err, r, "more than %u processes", AGENT_PIDS_MAX)
				   : err_errno(err, r, "cgroup.procs");
	}
	*ret = p.list;
	*ret_n = p.n;
	return 0;
}

int cgroup_open_of(int cgroup, const char *id, pid_t pid, int *ret_fd)
{
	cleanup_free char *path = NULL;
	cleanup_free char *mark = str_fmt("/pod/%s", id);
	const char *below;
	int fd, r = mark ? procfs_cgroup(pid, &path) : -ENOMEM;

	if (r < 0)
		return r;
	/* The first one is ours: what the container has named is behind it. */
	below = strstr(path, mark);
	below = below ? below + strlen(mark) : NULL;
	if (!below || (*below && *below != '/'))
		return -ESRCH;
	below += strspn(below, "/");
	fd = openat(cgroup, *below ? below : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int cgroup_remove_one(int parent, const char *name, int fd, void *arg)
{
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int cgroup_remove(int pod, const char *id)
{
	cleanup_fd int fd = -1;
	int r;

	if (unlinkat(pod, id, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	fd = openat(pod, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = walk(fd, 0, cgroup_remove_one, NULL);
	return r < 0 ? r : cgroup_remove_one(pod, id, -1, NULL);
}
