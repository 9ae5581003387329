/* `delete`: run when the daemon is dead, or never came up. Ends what may be left of the pod whose
 * bundle this is, removes its socket and files, and prints a DeleteResponse. The bundle of a
 * further container of a pod holds no record of processes: nothing is killed then. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/util.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "shim/cgroup.h"
#include "shim/cmd.h"
#include "shim/pids.h"
#include "shim/pod/sandbox.h"

#define KILL_TIMEOUT_MS 3000
#define ADDRESS_MAX 256
#define CGROUP_TRIES 50u

static void remove_file(const char *bundle, const char *name)
{
	cleanup_free char *path = str_fmt("%s/%s", bundle, name);

	if (path)
		(void)unlink(path);
}

/* Only a socket that nobody serves: in a bundle of a further container it is the pod's. */
static void remove_socket(const char *bundle)
{
	cleanup_free char *path = str_fmt("%s/address", bundle);
	cleanup_free char *address = NULL;
	cleanup_fd int fd = -1;
	const char *socket;
	int r;

	if (!path || read_file(path, ADDRESS_MAX, &address, NULL, NULL) < 0)
		return;
	address[strcspn(address, "\n")] = 0;
	socket = str_starts(address, "unix://") ? address + strlen("unix://") : address;
	if (socket[0] != '/')
		return;
	r = unix_connect(socket, &fd, NULL);
	if (r == -ECONNREFUSED)
		(void)unlink(socket);
}

/* What the record of processes does not have may be in the cgroup still. */
static void remove_cgroup(const char *bundle)
{
	cleanup_free char *record = str_fmt("%s/" CGROUP_FILE, bundle);
	cleanup_free char *path = NULL;

	if (!record || read_file(record, PATH_MAX, &path, NULL, NULL) < 0)
		return;
	if (!str_starts(path, "/sys/fs/cgroup/") || !strstr(path, "/husk-"))
		return;
	for (unsigned i = 0; i < CGROUP_TRIES && cgroup_remove(path) == -EBUSY; i++) {
		(void)!cgroup_kill(path);
		(void)usleep(KILL_TIMEOUT_MS * 1000 / CGROUP_TRIES / 3);
	}
	(void)unlink(record);
}

int shim_delete(const struct shim_args *args)
{
	TaskV2__DeleteResponse resp = TASK_V2__DELETE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct err err = { 0 };
	uint8_t packed[128];
	cleanup_fd int lock = -1;
	size_t n;
	int r = pids_lock(args->bundle, &lock, &err);

	if (r == 0)
		r = pids_lock_mark(lock, &err);
	if (r == 0)
		r = pids_kill(args->bundle, KILL_TIMEOUT_MS, &err);
	if (r < 0) {
		fprintf(stderr, "containerd-shim-husk-v2: delete %s: %s\n", args->id,
			err_text(&err));
		return 1;
	}
	remove_cgroup(args->bundle);
	remove_socket(args->bundle);
	remove_file(args->bundle, PIDS_FILE);
	remove_file(args->bundle, "address");
	pb_timestamp_set(&ts, now_real_ns());
	resp.exit_status = STATUS_KILLED;
	resp.exited_at = &ts;
	n = task_v2__delete_response__pack(&resp, packed);
	return write_all(STDOUT_FILENO, packed, n) < 0;
}
