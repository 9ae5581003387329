#include "agent/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/clock.h"
#include "agent/proc/sysctl.h"
#include "agent/rootfs/mnt.h"
#include "base/util.h"

#define SHM_DEFAULT (64 * MIB)
#define POD_FILES_SIZE "8m" /* containers can write to them; bounded */
#define HOSTNAME_DEFAULT "localhost"

static int put_file(const char *dir, const char *name, const char *text, const char *end,
		    struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, name);
	cleanup_fd int fd = -1;
	int r;

	if (!path)
		return err_nomem(err);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
	if (r == 0)
		r = write_all(fd, end, strlen(end));
	return r < 0 ? err_errno(err, r, "%s", path) : 0;
}

static int mount_tmpfs(const char *path, const char *size, const char *mode, struct err *err)
{
	const struct mnt_opt opts[] = { { "source", "tmpfs" }, { "size", size }, { "mode", mode } };
	cleanup_fd int mnt = -1;
	int r;

	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "%s", path);
	r = mnt_new("tmpfs", opts, ARRAY_SIZE(opts),
		    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, &mnt, err);
	if (r == 0 && (r = mnt_attach_path(mnt, path)) < 0)
		err_errno(err, r, "mount on %s", path);
	return r;
}

/* What containers bind: <run>/pod/{hosts,hostname,resolv.conf,shm}. */
static int make_files(struct agent *a, const Agent__CreateSandboxRequest *req, const char *hostname,
		      struct err *err)
{
	cleanup_free char *dir = str_fmt("%s/pod", a->cfg.run_dir);
	cleanup_free char *shm = str_fmt("%s/pod/shm", a->cfg.run_dir);
	char size[24];
	int r;

	if (!dir || !shm)
		return err_nomem(err);
	snprintf(size, sizeof(size), "%" PRIu64, req->shm_size ? req->shm_size : SHM_DEFAULT);
	r = mount_tmpfs(dir, POD_FILES_SIZE, "0755", err);
	if (r == 0)
		r = mount_tmpfs(shm, size, "1777", err);
	if (r == 0)
		r = put_file(dir, "hostname", hostname, "\n", err);
	if (r == 0 && *req->hosts)
		r = put_file(dir, "hosts", req->hosts, "", err);
	if (r == 0 && *req->resolv_conf)
		r = put_file(dir, "resolv.conf", req->resolv_conf, "", err);
	return r;
}

int sandbox_ready(const struct agent *a, struct err *err)
{
	if (a->ending)
		return err_set(err, -EBUSY, "the guest is shutting down");
	if (!a->sandboxed)
		return err_set(err, -EBUSY, "there is no sandbox yet");
	return 0;
}

int sandbox_create(struct agent *a, const Agent__CreateSandboxRequest *req, struct err *err)
{
	const char *hostname = *req->hostname ? req->hostname : HOSTNAME_DEFAULT;
	int r;

	if (a->ending)
		return sandbox_ready(a, err);
	if (a->sandboxed)
		return err_set(err, -EEXIST, "the sandbox is there already");
	if (req->realtime_ns > 0) {
		r = clock_set(req->realtime_ns, err);
		if (r < 0)
			return err_wrap(err, r, "create sandbox");
	}
	if (sethostname(hostname, strlen(hostname)) < 0)
		return err_errno(err, -errno, "create sandbox: hostname");
	r = make_files(a, req, hostname, err);
	if (r == 0 && a->cfg.set_defaults)
		r = a->cfg.set_defaults(err);
	for (size_t i = 0; r == 0 && i < req->n_sysctls; i++)
		r = sysctl_write(req->sysctls[i]->key, req->sysctls[i]->value, err);
	if (r == 0)
		r = cgroups_init(&a->cgroups, a->loop, a->cfg.cgroup_dir, a->on_memory_event, a,
				 err);
	if (r < 0)
		return err_wrap(err, r, "create sandbox");
	a->sandboxed = true;
	return 0;
}
