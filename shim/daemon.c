/* The daemon: `start` executes the program again with the listening socket as descriptor 3 and the
 * packed Options as descriptor 4. It lives until Shutdown or ShutdownSandbox. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "shim/cmd.h"
#include "shim/pids.h"
#include "shim/shim.h"

#define LISTEN_FD 3
#define OPTIONS_FD 4
#define LOCK_FD 5 /* of the bundle (pids.h), held until our record is there */
#define OPTIONS_MAX (64 * KIB)
#define EXIT_LINGER_NS (500 * NS_PER_MS) /* for the last answer and the last events */

static int record_pids(struct shim *s, struct err *err)
{
	const struct vm_info *i = &s->sandbox.info;
	bool vm = s->sandbox.vm;
	struct pid_entry list[] = { { "shim", getpid() },
				    { "vmm", vm ? i->pid : 0 },
				    { "qemu", vm ? i->qemu_pid : 0 } };

	return pids_write(s->bundle, list, ARRAY_SIZE(list), err);
}

void shim_record_pids(struct shim *s)
{
	struct err e = { 0 };

	if (record_pids(s, &e) < 0)
		log_warn("record of processes", "err", err_text(&e));
}

/* ---- the end ---- */

static void on_exit_timer(struct ev_timer *t)
{
	struct shim *s = t->arg;

	loop_stop(s->loop, 0);
}

static void on_disconnect(void *arg)
{
	struct shim *s = arg;

	/* The client has its answer. */
	if (s->exiting && s->sandbox.state == SB_STOPPED && events_idle(s->events))
		loop_stop(s->loop, 0);
}

/* Nothing of the pod runs any more. */
static void finish(struct shim *s)
{
	/* The same empty message in every service. */
	static const Wkt__Empty empty = WKT__EMPTY__INIT;

	s->sandbox.state = SB_STOPPED;
	(void)unlink(s->socket);
	calls_reply(&s->exit_calls, &empty.base, 0, NULL);
	if (ev_timer_add(s->loop, &s->exit_timer, EXIT_LINGER_NS, on_exit_timer, s) < 0)
		loop_stop(s->loop, 0);
}

void shim_exit(struct shim *s, struct ttrpc_call *call)
{
	calls_add(&s->exit_calls, call);
	if (s->exiting)
		return;
	s->exiting = true;
	if (s->sandbox.vm) {
		s->sandbox.state = SB_STOPPING;
		sandbox_kill(s, "");
	} else {
		finish(s);
	}
}

void shim_sandbox_ended(struct shim *s)
{
	if (s->exiting)
		finish(s);
}

/* ---- set-up ---- */

static void set_up_process(void)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT };
	struct rlimit rl;

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
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

static int default_path(const char *given, const char *dir, const char *name, char **ret)
{
	*ret = str_empty(given) ? str_fmt("%s/%s", dir, name) : strdup(given);
	return *ret ? 0 : -ENOMEM;
}

static int resolve_paths(struct shim *s, struct err *err)
{
	cleanup_free char *dir = NULL;
	int r = program_dir(&dir, err);

	if (r < 0)
		return r;
	r = default_path(s->opts->vmm_path, dir, "husk-vmm", &s->vmm_path);
	if (r == 0)
		r = default_path(s->opts->kernel, dir, "../share/husk/vmlinux", &s->kernel);
	if (r == 0)
		r = default_path(s->opts->initramfs, dir, "../share/husk/initramfs.cpio",
				 &s->initramfs);
	return r < 0 ? err_errno(err, r, "paths") : 0;
}

static int serve(struct shim *s, struct err *err)
{
	const struct ttrpc_service services[] = {
		{ &task_v2__task__descriptor, task_methods, s },
		{ &task_v3__task__descriptor, task_methods, s },
		{ &sandbox__sandbox__descriptor, sandbox_methods, s },
		{ &shim__shim__descriptor, husk_methods, s },
	};
	int r = ttrpc_server_new(s->loop, services, ARRAY_SIZE(services), &s->server, err);

	if (r < 0)
		return r;
	ttrpc_server_on_disconnect(s->server, on_disconnect, s);
	r = ttrpc_server_listen(s->server, LISTEN_FD, true);
	if (r < 0)
		return err_errno(err, r, "listen");
	r = loop_run(s->loop);
	/* The order of the end: no request comes any more, then what answers them goes. */
	sandbox_fini(s);
	containers_free(s);
	ttrpc_server_free(s->server);
	ev_timer_del(&s->exit_timer);
	return r;
}

static int run(struct shim *s, const struct shim_args *args, struct err *err)
{
	cleanup_free char *packed = NULL;
	Shim__Options *opts;
	size_t n = 0;
	int r = read_fd(OPTIONS_FD, OPTIONS_MAX, &packed, &n);

	if (r < 0)
		return err_errno(err, r, "options");
	opts = shim__options__unpack(NULL, n, (const uint8_t *)packed);
	if (!opts)
		return err_set(err, -EINVAL, "options: malformed");
	s->opts = opts;
	(void)close(OPTIONS_FD);
	r = resolve_paths(s, err);
	if (r == 0)
		r = loop_new(&s->loop, err);
	if (r == 0) {
		sandbox_init(s);
		r = events_new(s->loop, getenv("TTRPC_ADDRESS"), args->ns, &s->events, err);
	}
	if (r == 0)
		r = serve(s, err);
	events_free(s->events);
	loop_free(s->loop);
	shim__options__free_unpacked(opts, NULL);
	free(s->vmm_path);
	free(s->kernel);
	free(s->initramfs);
	return r;
}

static void set_up_log(void)
{
	enum log_level level = LOG_INFO;
	const char *wanted = getenv("HUSK_LOG_LEVEL"), *format = getenv("HUSK_LOG_FORMAT");

	if (wanted && log_level_parse(wanted, &level) < 0)
		level = LOG_INFO;
	log_init("shim", STDERR_FILENO, level, str_eq(format, "json"));
}

int shim_daemon(const struct shim_args *args)
{
	struct shim s = { .ns = args->ns, .id = args->id, .bundle = args->bundle };
	char socket[SHIM_SOCKET_MAX + 2];
	struct err e = { 0 };
	int r;

	set_up_log();
	set_up_process();
	r = socket_path(socket, sizeof(socket));
	if (r < 0) {
		log_error(
			"descriptor 3 is not the shim's socket; the daemon is started by `start`");
		return 1;
	}
	s.socket = socket;
	/* First of all: `delete` waits for it. Without a record nobody could end us. */
	r = record_pids(&s, &e);
	(void)close(LOCK_FD);
	if (r == 0)
		r = run(&s, args, &e);
	if (r < 0)
		log_error("shim failed", "pod", s.id, "err", err_text(&e));
	return r < 0;
}
