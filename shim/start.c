/* `start`: makes the pod's socket, starts the daemon on it and prints where it is. One daemon
 * serves all containers of a pod: for a further one the address of the running daemon is printed.
 * Nothing but the answer may be written to standard output, and containerd also reads standard
 * error until everybody has closed it, so the daemon inherits neither (unless huskd asks for it).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/spawn.h"
#include "base/util.h"
#include "proto/containerd_bootstrap_v1.pb-c.h"
#include "proto/containerd_runtimeoptions_v1.pb-c.h"
#include "proto/shim.pb-c.h"
#include "shim/cmd.h"
#include "shim/id.h"
#include "shim/oci/oci.h"
#include "shim/pids.h"
#include "shim/sha256.h"

#define INPUT_MAX MIB
#define CONTAINERD_SOCKETS "/run/containerd/s"
#define HUSK_NAMESPACE "husk"
#define HUSK_HASH_DIGITS 32 /* leaves room for long state directories */

struct input {
	struct pb_arena arena;
	Shim__Options *opts;	/* never NULL after read_input */
	bool ours;		/* the caller gave Options of Husk */
	bool bootstrap;		/* containerd 2.3 or later */
	const char *socket_dir; /* "" = by convention */
};

/* ---- standard input ---- */

static int take_options(struct input *in, const Wkt__Any *any, struct err *err)
{
	const char *type = pb_any_type(any);
	ProtobufCMessage *msg;
	int r;

	if (any->value.len == 0 && !str_eq(type, "husk.shim.v1.Options"))
		return 0;
	if (str_eq(type, "runtimeoptions.v1.Options"))
		return err_set(err, -ENOSYS,
			       "runtime options as a file (ConfigPath) are not supported yet");
	if (!str_eq(type, "husk.shim.v1.Options"))
		return err_set(err, -EINVAL, "runtime options of type \"%.100s\" are not for Husk",
			       type);
	r = pb_unpack(&in->arena, &shim__options__descriptor, any->value.data, any->value.len,
		      &msg);
	if (r < 0)
		return err_errno(err, r, "runtime options");
	in->opts = (Shim__Options *)msg;
	in->ours = true;
	return 0;
}

/* What containerd 2.3 sends is not the Any of before it, and either may parse as the other; the ids
 * tell. */
static int parse_input(struct input *in, const struct shim_args *args, const void *data, size_t n,
		       struct err *err)
{
	const Bootstrap__BootstrapParams *bp;
	ProtobufCMessage *msg;
	int r = pb_unpack(&in->arena, &bootstrap__bootstrap_params__descriptor, data, n, &msg);

	bp = (const void *)msg;
	if (r == 0 && str_eq(bp->instance_id, args->id) && str_eq(bp->namespace_, args->ns)) {
		in->bootstrap = true;
		in->socket_dir = bp->socket_dir;
		for (size_t i = 0; i < bp->n_extensions && r == 0; i++) {
			if (bp->extensions[i]->value)
				r = take_options(in, bp->extensions[i]->value, err);
		}
		return r;
	}
	r = pb_unpack(&in->arena, &wkt__any__descriptor, data, n, &msg);
	if (r < 0)
		return err_errno(err, r, "standard input");
	return take_options(in, (const void *)msg, err);
}

static int read_input(struct input *in, const struct shim_args *args, struct err *err)
{
	cleanup_free char *data = NULL;
	size_t n = 0;
	int r = 0;

	pb_arena_init(&in->arena, 16 * MIB);
	in->socket_dir = "";
	if (!isatty(STDIN_FILENO))
		r = read_fd(STDIN_FILENO, INPUT_MAX, &data, &n);
	if (r < 0 && r != -EBADF)
		return err_errno(err, r, "standard input");
	if (n) {
		r = parse_input(in, args, data, n, err);
		if (r < 0)
			return r;
	}
	if (in->opts)
		return 0;
	in->opts = pb_arena_alloc(&in->arena, sizeof(*in->opts));
	if (!in->opts)
		return err_nomem(err);
	shim__options__init(in->opts);
	return 0;
}

/* ---- the socket ---- */

/* "<dir>/<hash of address, namespace, group>": the same for all containers of a pod. */
static int socket_of(const struct shim_args *args, const struct input *in, const char *group,
		     char **ret, struct err *err)
{
	cleanup_free char *dir = NULL, *name = NULL;
	const char *address = args->address;
	bool husk = str_eq(args->ns, HUSK_NAMESPACE);
	uint8_t hash[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];
	const char *slash;
	int r;

	if (str_starts(address, "unix://"))
		address += strlen("unix://");
	slash = strrchr(address, '/');
	if (!str_empty(in->opts->socket_dir))
		dir = strdup(in->opts->socket_dir);
	else if (!str_empty(in->socket_dir))
		dir = strdup(in->socket_dir);
	else if (husk && slash)
		dir = str_fmt("%.*s/s", (int)(slash - address), address);
	else
		dir = strdup(CONTAINERD_SOCKETS);
	name = str_fmt("%s/%s/%s", address, args->ns, group);
	if (!dir || !name)
		return err_nomem(err);
	r = mkdir_p(dir, 0700, err);
	if (r < 0)
		return err_wrap(err, r, "socket");
	sha256(name, strlen(name), hash);
	hex_encode(hash, sizeof(hash), hex);
	if (husk)
		hex[HUSK_HASH_DIGITS] = 0;
	*ret = str_fmt("%s/%s", dir, hex);
	if (!*ret)
		return err_nomem(err);
	if (strlen(*ret) <= SHIM_SOCKET_MAX)
		return 0;
	r = err_set(err, -ENAMETOOLONG, "socket %s: longer than %u characters", *ret,
		    SHIM_SOCKET_MAX);
	free_ptr(ret);
	return r;
}

static bool is_served(const char *path)
{
	cleanup_fd int fd = -1;

	return unix_connect(path, &fd, NULL) == 0;
}

/* ---- the daemon ---- */

static int options_memfd(const Shim__Options *o, int *ret, struct err *err)
{
	cleanup_fd int fd = memfd_create("husk-options", MFD_CLOEXEC);
	size_t n = shim__options__get_packed_size(o);
	cleanup_free uint8_t *packed = malloc(n + 1);
	int r;

	if (!packed)
		return err_nomem(err);
	if (fd < 0)
		return err_errno(err, -errno, "options");
	shim__options__pack(o, packed);
	r = write_all(fd, packed, n);
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0)
		return err_errno(err, r, "options");
	*ret = take_fd(&fd);
	return 0;
}

/* Where the daemon's standard error goes. -1 = nowhere. */
static int open_log(const struct shim_args *args, const struct input *in, int *ret, struct err *err)
{
	cleanup_free char *path = NULL;
	int fd;

	if (!str_empty(in->opts->log_file)) {
		fd = open(in->opts->log_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
		if (fd < 0)
			return err_errno(err, -errno, "log file %s", in->opts->log_file);
		*ret = fd;
		return 0;
	}
	if (in->ours) {
		fd = in->opts->log_fd ? (int)in->opts->log_fd : STDERR_FILENO;
		*ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		return *ret < 0 ? err_errno(err, -errno, "log") : 0;
	}
	/* containerd's log FIFO; opened for both directions it neither blocks nor breaks. */
	path = str_fmt("%s/log", args->bundle);
	*ret = path ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
	return 0;
}

static int start_daemon(const struct shim_args *args, const struct input *in, const char *group,
			int listen_fd, int lock_fd, struct err *err)
{
	const char *argv[] = {
		"containerd-shim-husk-v2",
		"-namespace",
		args->ns,
		"-id",
		group,
		"-address",
		args->address,
		"-bundle",
		args->bundle,
		"daemon",
		NULL,
	};
	struct spawn s = spawn_of("/proc/self/exe", (char *const *)argv, OOM_SCORE_SHIM);
	cleanup_fd int options = -1, log = -1, pidfd = -1;
	const char *level = args->debug ? "debug" : in->opts->log_level;
	pid_t pid;
	int r = options_memfd(in->opts, &options, err);

	if (r == 0)
		r = open_log(args, in, &log, err);
	if (r < 0)
		return r;
	if (setenv("HUSK_LOG_LEVEL", *level ? level : "info", 1) < 0 ||
	    setenv("HUSK_LOG_FORMAT", in->opts->log_format, 1) < 0)
		return err_errno(err, -errno, "environment");
	s.fds[2] = log;
	s.fds[3] = listen_fd;
	s.fds[4] = options;
	s.fds[5] = lock_fd;
	s.n_fds = 6;
	s.cwd = args->bundle;
	s.new_session = true;
	return spawn_run(&s, &pid, &pidfd, err);
}

/* ---- the answer ---- */

/* Plain before containerd 1.7, JSON of version 2 up to 2.2, of version 3 then and for huskd. */
static void answer(const struct shim_args *args, const struct input *in, const char *address)
{
	bool v3 = in->bootstrap || str_eq(args->ns, HUSK_NAMESPACE);

	if (!v3 && !getenv("MAX_SHIM_VERSION"))
		printf("%s", address);
	else
		printf("{\"version\":%d,\"address\":\"%s\",\"protocol\":\"ttrpc\"}\n", v3 ? 3 : 2,
		       address);
	(void)fflush(stdout);
}

static int start(const struct shim_args *args, struct input *in, struct err *err)
{
	cleanup_free char *socket = NULL, *address = NULL, *file = NULL;
	struct oci_group g;
	const char *group = args->id;
	cleanup_fd int fd = -1, lock = -1;
	int r = read_input(in, args, err);

	if (r == 0)
		r = pids_lock(args->bundle, &lock, err);
	if (r == 0)
		r = pids_lock_check(lock, err);
	if (r == 0)
		r = oci_group_of(args->bundle, &g, err);
	if (r < 0)
		return r;
	if (*g.group)
		group = g.group;
	else if (*g.sandbox_id)
		group = g.sandbox_id;
	if (!shim_id_valid(group))
		return err_set(err, -EINVAL, "\"%.60s\" is not a group id", group);
	r = socket_of(args, in, group, &socket, err);
	if (r < 0)
		return r;
	address = str_fmt("unix://%s", socket);
	file = str_fmt("%s/address", args->bundle);
	if (!address || !file)
		return err_nomem(err);
	if (!is_served(socket)) {
		r = unix_listen(socket, 0600, &fd, err);
		if (r == 0)
			r = start_daemon(args, in, group, fd, lock, err);
		if (r < 0) {
			if (fd >= 0)
				(void)unlink(socket);
			return r;
		}
	}
	r = write_file_atomic(file, address, strlen(address), 0600, false, err);
	if (r < 0)
		return r;
	answer(args, in, address);
	return 0;
}

int shim_start(const struct shim_args *args)
{
	struct input in = { .socket_dir = "" };
	struct err err = { 0 };
	int r = start(args, &in, &err);

	pb_arena_fini(&in.arena);
	if (r < 0)
		fprintf(stderr, "containerd-shim-husk-v2: start %s: %s\n", args->id,
			err_text(&err));
	return r < 0;
}
