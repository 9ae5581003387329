/* The daemon: `start` executes the program again with the listening socket as descriptor 3 and the
 * packed Options as descriptor 4. It lives until Shutdown or ShutdownSandbox. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "base/util.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "shim/cmd.h"
#include "shim/pids.h"
#include "shim/service/service.h"
#include "shim/shim.h"

#define LISTEN_FD 3
#define OPTIONS_FD 4
#define LOCK_FD 5 /* of the bundle (pids.h), held until our record is there */
#define OPTIONS_MAX (64 * KIB)

static void set_up_process(void)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT };

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
	(void)!raise_nofile(RLIM_INFINITY);
	/* What a burst took goes back to the host. */
	(void)mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	(void)mallopt(M_TRIM_THRESHOLD, 64 * 1024);
}

static int socket_path(char *buf, size_t size)
{
	struct sockaddr_un a;
	socklen_t n = sizeof(a);

	memset(&a, 0, sizeof(a));
	if (getsockname(LISTEN_FD, (struct sockaddr *)&a, &n) < 0)
		return -errno;
	if (a.sun_family != AF_UNIX || a.sun_path[0] != '/')
		return -EINVAL;
	(void)snprintf(buf, size, "%.*s", (int)sizeof(a.sun_path), a.sun_path);
	return 0;
}

/* The programs and files of the installation. */
struct paths {
	char *vmm, *kernel, *initramfs;
	char *console, *cgroup; /* of the pod */
};

static int find_paths(const Shim__Options *o, const char *bundle, struct paths *p, struct err *err)
{
	int r = program_path(o->vmm_path, "husk-vmm", &p->vmm, err);

	if (r == 0)
		r = program_path(o->kernel, "../share/husk/vmlinux", &p->kernel, err);
	if (r == 0)
		r = program_path(o->initramfs, "../share/husk/initramfs.cpio", &p->initramfs, err);
	if (r < 0)
		return r;
	p->console = str_fmt("%s/console.log", bundle);
	p->cgroup = str_fmt("%s/" CGROUP_FILE, bundle);
	return p->console && p->cgroup ? 0 : err_nomem(err);
}

/* Until the shim's end. */
static int serve(struct shim *s, struct err *err)
{
	const struct ttrpc_service services[] = {
		{ &task_v2__task__descriptor, task_methods, s },
		{ &task_v3__task__descriptor, task_methods, s },
		{ &sandbox__sandbox__descriptor, sandbox_methods, s },
		{ &shim__shim__descriptor, husk_methods, s },
	};
	struct ttrpc_server *server = NULL;
	int r = ttrpc_server_new(s->loop, services, ARRAY_SIZE(services), &server, err);

	if (r < 0)
		return r;
	ttrpc_server_on_disconnect(server, shim_on_disconnect, s);
	r = ttrpc_server_listen(server, LISTEN_FD, true);
	if (r == 0)
		r = loop_run(s->loop);
	if (r < 0)
		(void)err_errno(err, r, "serve");
	/* What answers the calls goes before those who asked. */
	shim_fini(s);
	ttrpc_server_free(server);
	return r;
}

static void daemon_on_event_lost(const char *topic, const char *why, void *arg)
{
	log_limited(LOG_WARN, "an event was dropped", "topic", topic, "why", why);
}

static int run(struct shim *s, const Shim__Options *opts, struct err *err)
{
	struct paths paths = { 0 };
	struct sandbox_setup setup = { .id = s->id, .opts = opts };
	int r = find_paths(opts, s->bundle, &paths, err);

	setup.vmm_path = paths.vmm;
	setup.kernel = paths.kernel;
	setup.initramfs = paths.initramfs;
	setup.console = paths.console;
	setup.cgroup_record = paths.cgroup;
	if (r == 0)
		r = loop_new(&s->loop, err);
	if (r == 0)
		r = events_new(s->loop, getenv("TTRPC_ADDRESS"), s->ns, daemon_on_event_lost, NULL,
			       &s->events, err);
	if (r == 0) {
		shim_init(s, &setup, &task_events);
		r = serve(s, err);
	}
	events_free(s->events);
	loop_free(s->loop);
	free(paths.vmm);
	free(paths.kernel);
	free(paths.initramfs);
	free(paths.console);
	free(paths.cgroup);
	return r;
}

static int read_options(Shim__Options **ret, struct err *err)
{
	cleanup_free char *packed = NULL;
	size_t n = 0;
	int r = read_fd(OPTIONS_FD, OPTIONS_MAX, &packed, &n);

	if (r < 0)
		return err_errno(err, r, "options");
	*ret = shim__options__unpack(NULL, n, (const uint8_t *)packed);
	if (!*ret)
		return err_set(err, -EINVAL, "options: malformed");
	(void)close(OPTIONS_FD);
	return 0;
}

static void set_up_log(const char *id)
{
	enum log_level level = LOG_INFO;
	const char *wanted = getenv("HUSK_LOG_LEVEL"), *format = getenv("HUSK_LOG_FORMAT");

	if (wanted && log_level_parse(wanted, &level) < 0)
		level = LOG_INFO;
	log_init("shim", STDERR_FILENO, level, str_eq(format, "json"));
	log_set_context("pod", id);
}

int shim_daemon(const struct shim_args *args)
{
	struct shim s = { .ns = args->ns, .id = args->id, .bundle = args->bundle };
	char socket[SHIM_SOCKET_MAX + 2];
	Shim__Options *opts = NULL;
	struct err err = { 0 };
	int r;

	set_up_log(args->id);
	set_up_process();
	r = socket_path(socket, sizeof(socket));
	if (r < 0) {
		log_error(
			"descriptor 3 is not the shim's socket; the daemon is started by `start`");
		return 1;
	}
	s.socket = socket;
	/* First of all: `delete` waits for it. Without a record nobody could end us. */
	r = shim_record_pids(&s, &err);
	(void)close(LOCK_FD);
	if (r == 0)
		r = read_options(&opts, &err);
	if (r == 0)
		r = run(&s, opts, &err);
	if (r < 0)
		log_error("shim failed", "err", err_text(&err));
	if (opts)
		shim__options__free_unpacked(opts, NULL);
	return r < 0;
}
