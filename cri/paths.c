#include "cri/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>

#include "base/util.h"
#include "cri/huskd.h"

char *path_db(const struct huskd *d)
{
	return str_fmt("%s/husk.db", d->config.root);
}

char *path_images(const struct huskd *d)
{
	return str_fmt("%s/images", d->config.root);
}

char *path_net(const struct huskd *d)
{
	return str_fmt("%s/net", d->config.root);
}

char *path_pods(const struct huskd *d)
{
	return str_fmt("%s/pods", d->config.state);
}

char *path_containers(const struct huskd *d)
{
	return str_fmt("%s/containers", d->config.state);
}

char *path_containers_data(const struct huskd *d)
{
	return str_fmt("%s/containers", d->config.root);
}

char *path_execs(const struct huskd *d)
{
	return str_fmt("%s/exec", d->config.state);
}

char *path_shims(const struct huskd *d)
{
	return str_fmt("%s/shim", d->config.state);
}

/* Takes dir over. */
static char *below(char *dir, const char *id)
{
	char *path = dir ? str_fmt("%s/%s", dir, id) : NULL;

	free(dir);
	return path;
}

char *path_pod(const struct huskd *d, const char *pod_id)
{
	return below(path_pods(d), pod_id);
}

char *path_container(const struct huskd *d, const char *id)
{
	return below(path_containers(d), id);
}

char *path_container_data(const struct huskd *d, const char *id)
{
	return below(path_containers_data(d), id);
}

char *path_scratch(const struct huskd *d, const char *id)
{
	cleanup_free char *dir = path_container_data(d, id);

	return dir ? str_fmt("%s/scratch.ext4", dir) : NULL;
}

char *path_exec(const struct huskd *d, const char *exec_id)
{
	return below(path_execs(d), exec_id);
}

/* ---- at the start ---- */

/* Two daemons on one directory would destroy each other's pods. */
static int lock_dir(const char *dir, int *ret_fd, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/huskd.lock", dir);
	cleanup_fd int fd = -1;

	if (!path)
		return err_nomem(err);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, -EBUSY, "%s is used by another huskd", dir);
	*ret_fd = take_fd(&fd);
	return 0;
}

int path_prepare(const struct huskd *d, int ret_locks[2], struct err *err)
{
	char *(*const dirs[])(const struct huskd *) = {
		path_pods, path_containers, path_containers_data, path_execs, path_shims,
	};
	const char *root = d->config.root, *state = d->config.state;
	int r = mkdir_p(root, 0711, err);

	ret_locks[0] = ret_locks[1] = -1;
	if (r == 0)
		r = mkdir_p(state, 0711, err);
	if (r == 0)
		r = lock_dir(root, &ret_locks[0], err);
	if (r == 0 && !str_eq(root, state))
		r = lock_dir(state, &ret_locks[1], err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(dirs); i++) {
		cleanup_free char *path = dirs[i](d);

		r = path ? mkdir_p(path, 0700, err) : err_nomem(err);
	}
	return r;
}

/* ---- room on the disks ---- */

static int check_space(const char *dir, const char *remedy, struct err *err)
{
	struct statvfs st;
	uint64_t available, least;

	if (statvfs(dir, &st) < 0)
		return 0; /* whoever writes there will say it */
	available = (uint64_t)st.f_bavail * st.f_frsize;
	least = disk_reserve((uint64_t)st.f_blocks * st.f_frsize);
	if (available >= least)
		return 0;
	return err_set(err, -ENOSPC,
		       "no space left for pods and containers in %s: %llu MiB are free, %llu have "
		       "to stay free for what runs; %s",
		       dir, (unsigned long long)(available / MIB),
		       (unsigned long long)(least / MIB), remedy);
}

int path_check_space(const struct huskd *d, struct err *err)
{
	int r = check_space(d->config.root,
			    "remove containers or images (husk rm, husk rmi, husk prune), or make "
			    "room",
			    err);

	return r == 0 ? check_space(d->config.state, "make room there", err) : r;
}
