/*
 * husk run: image, pod, container, its output, its exit code. A pod of its own for each container;
 * the output is read from the container's log, the exit comes by WaitContainer.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cri.h"
#include "cli/follow.h"
#include "cli/pull.h"
#include "cli/wait.h"

#define LOG_NAME "0.log"
#define ENV_MAX 256

struct run {
	struct cli *c;
	/* options */
	const char *image;
	char **command;
	size_t n_command;
	const char *name, *workdir, *user;
	bool rm, detach, always_pull, show_times;
	Cri__KeyValue env[ENV_MAX], *env_ptr[ENV_MAX];
	size_t n_env;
	/* results */
	char id[65], *log_dir, *pod_id, *ct_id;
	struct pulled pulled;
	pthread_t stopper; /* valid when stopping */
	bool stopping;
	uint64_t create_ns, start_ns; /* how long that took */
};

/* ---- options ---- */

static int add_env(struct run *run, char *arg, struct err *err)
{
	char *eq = strchr(arg, '=');
	const char *value;

	if (run->n_env == ENV_MAX)
		return err_set(err, -E2BIG, "more than %d variables", ENV_MAX);
	if (eq == arg || !*arg)
		return err_set(err, -EINVAL, "-e %s: the name is missing", arg);
	if (eq)
		*eq = '\0';
	/* -e NAME passes our own value on, as Docker does; without one there is nothing to pass. */
	value = eq ? eq + 1 : getenv(arg);
	if (!value)
		return 0;
	cri__key_value__init(&run->env[run->n_env]);
	run->env[run->n_env].key = arg;
	run->env[run->n_env].value.data = (uint8_t *)value;
	run->env[run->n_env].value.len = strlen(value);
	run->env_ptr[run->n_env] = &run->env[run->n_env];
	run->n_env++;
	return 0;
}

static int parse(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{ "rm", no_argument, NULL, 'R' },
		{ "name", required_argument, NULL, 'n' },
		{ "env", required_argument, NULL, 'e' },
		{ "detach", no_argument, NULL, 'd' },
		{ "workdir", required_argument, NULL, 'w' },
		{ "user", required_argument, NULL, 'u' },
		{ "pull", no_argument, NULL, 'P' },
		{ "times", no_argument, NULL, 'T' },
		{ "interactive", no_argument, NULL, 'i' },
		{ "tty", no_argument, NULL, 't' },
		{ 0 },
	};
	struct err err = { 0 };
	int o;

	while ((o = next_option(&cmd_run, argc, argv, "+:e:dw:u:it", options)) != -1) {
		switch (o) {
		case 'R':
			run->rm = true;
			break;
		case 'n':
			run->name = optarg;
			break;
		case 'e':
			if (add_env(run, optarg, &err) < 0)
				return usage_error(&cmd_run, "%s", err_text(&err));
			break;
		case 'd':
			run->detach = true;
			break;
		case 'w':
			run->workdir = optarg;
			break;
		case 'u':
			run->user = optarg;
			break;
		case 'P':
			run->always_pull = true;
			break;
		case 'T':
			run->show_times = true;
			break;
		case 'i':
		case 't':
			return usage_error(
				&cmd_run,
				"-i and -t need the streaming server, which this version "
				"does not have yet; without them the output is shown, "
				"and 'husk exec' runs further commands");
		default:
			return EXIT_USAGE;
		}
	}
	if (optind == argc)
		return usage_error(&cmd_run, "no image given");
	run->image = argv[optind];
	run->command = argv + optind + 1;
	run->n_command = (size_t)(argc - optind - 1);
	return 0;
}

/* ---- pod and container ---- */

struct request {
	Cri__PodSandboxMetadata meta;
	Cri__PodSandboxConfig pod;
	Cri__PodSandboxConfig__LabelsEntry labels[2], *label_ptr[2];
};

static void fill_pod(const struct run *run, struct request *q)
{
	cri__pod_sandbox_metadata__init(&q->meta);
	cri__pod_sandbox_config__init(&q->pod);
	q->meta.name = (char *)run->name;
	q->meta.namespace_ = (char *)"default";
	/* The same name gives the same pod, so a second one is refused while the first is there. */
	q->meta.uid = (char *)run->name;
	q->pod.metadata = &q->meta;
	q->pod.hostname = (char *)run->name;
	q->pod.log_directory = run->log_dir;
	for (size_t i = 0; i < ARRAY_SIZE(q->labels); i++) {
		cri__pod_sandbox_config__labels_entry__init(&q->labels[i]);
		q->label_ptr[i] = &q->labels[i];
	}
	q->labels[0].key = (char *)LABEL_NAME;
	q->labels[0].value = (char *)run->name;
	q->labels[1].key = (char *)LABEL_RUN;
	q->labels[1].value = (char *)"1";
	q->pod.labels = q->label_ptr;
	q->pod.n_labels = ARRAY_SIZE(q->labels);
}

static int make_pod(struct run *run, struct request *q, struct err *err)
{
	Cri__RunPodSandboxRequest req = CRI__RUN_POD_SANDBOX_REQUEST__INIT;
	Cri__RunPodSandboxResponse *resp;
	int r;

	req.config = &q->pod;
	r = runtime_call(run->c, "RunPodSandbox", &req, POD_TIMEOUT_MS, &resp, err);
	if (r == -EEXIST)
		return err_set(
			err, r,
			"there is a container named '%s' already; remove it with 'husk rm %s' "
			"or choose another --name",
			run->name, run->name);
	if (r < 0)
		return r;
	run->pod_id = strdup(resp->pod_sandbox_id);
	cri__run_pod_sandbox_response__free_unpacked(resp, NULL);
	return run->pod_id ? 0 : err_nomem(err);
}

/* What other runtimes hide from containers, and keep them from changing. In CRI the client sends
 * these lists (kubelet has the same), and empty ones mean that nothing is hidden. */
static const char *const masked_paths[] = {
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
};
static const char *const readonly_paths[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static int make_container(struct run *run, struct request *q, struct err *err)
{
	Cri__CreateContainerRequest req = CRI__CREATE_CONTAINER_REQUEST__INIT;
	Cri__ContainerMetadata meta = CRI__CONTAINER_METADATA__INIT;
	Cri__ContainerConfig cfg = CRI__CONTAINER_CONFIG__INIT;
	Cri__ImageSpec image = CRI__IMAGE_SPEC__INIT;
	Cri__LinuxContainerConfig lnx = CRI__LINUX_CONTAINER_CONFIG__INIT;
	Cri__LinuxContainerSecurityContext sec = CRI__LINUX_CONTAINER_SECURITY_CONTEXT__INIT;
	Cri__NamespaceOption ns = CRI__NAMESPACE_OPTION__INIT;
	Cri__Int64Value uid = CRI__INT64_VALUE__INIT;
	Cri__ContainerConfig__LabelsEntry labels[2], *label_ptr[2];
	Cri__CreateContainerResponse *resp;
	int r;

	meta.name = (char *)run->name;
	image.image = run->pulled.image_ref;
	image.user_specified_image = (char *)run->image;
	cfg.metadata = &meta;
	cfg.image = &image;
	cfg.args = run->command;
	cfg.n_args = run->n_command;
	cfg.envs = run->env_ptr;
	cfg.n_envs = run->n_env;
	cfg.working_dir = (char *)(run->workdir ? run->workdir : "");
	cfg.log_path = (char *)LOG_NAME;
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		cri__container_config__labels_entry__init(&labels[i]);
		labels[i].key = q->labels[i].key;
		labels[i].value = q->labels[i].value;
		label_ptr[i] = &labels[i];
	}
	cfg.labels = label_ptr;
	cfg.n_labels = ARRAY_SIZE(labels);
	sec.masked_paths = (char **)masked_paths;
	sec.n_masked_paths = ARRAY_SIZE(masked_paths);
	sec.readonly_paths = (char **)readonly_paths;
	sec.n_readonly_paths = ARRAY_SIZE(readonly_paths);
	ns.pid = CRI__NAMESPACE_MODE__CONTAINER;
	sec.namespace_options = &ns;
	if (run->user && str_to_i64(run->user, 0, UINT32_MAX - 1, &uid.value) == 0)
		sec.run_as_user = &uid;
	else if (run->user)
		sec.run_as_username = (char *)run->user;
	lnx.security_context = &sec;
	cfg.linux = &lnx;
	req.pod_sandbox_id = run->pod_id;
	req.config = &cfg;
	req.sandbox_config = &q->pod;
	r = runtime_call(run->c, "CreateContainer", &req, CALL_TIMEOUT_MS, &resp, err);
	if (r < 0)
		return r;
	run->ct_id = strdup(resp->container_id);
	cri__create_container_response__free_unpacked(resp, NULL);
	return run->ct_id ? 0 : err_nomem(err);
}

/* A start that failed has an exit code of its own (127 not found, 126 not executable). */
static int failed_start_code(struct run *run)
{
	Cri__ContainerStatusRequest req = CRI__CONTAINER_STATUS_REQUEST__INIT;
	Cri__ContainerStatusResponse *resp;
	int code = EXIT_HUSK;

	req.container_id = run->ct_id;
	if (runtime_call(run->c, "ContainerStatus", &req, CALL_TIMEOUT_MS, &resp, NULL) < 0)
		return code;
	if (resp->status && resp->status->state == CRI__CONTAINER_STATE__CONTAINER_EXITED &&
	    resp->status->exit_code > 0)
		code = resp->status->exit_code;
	cri__container_status_response__free_unpacked(resp, NULL);
	return code;
}

static void time_line(const char *what, uint64_t ns)
{
	fprintf(stderr, "  %-18s %8.1f ms\n", what, (double)ns / NS_PER_MS);
}

/* The table of --times; the pod must still be there. */
static void print_times(struct run *run)
{
	Husk__PodTimesRequest req = HUSK__POD_TIMES_REQUEST__INIT;
	Husk__PodTimesResponse *t;
	struct err err = { 0 };

	req.pod_sandbox_id = run->pod_id;
	if (husk_call(run->c, "PodTimes", &req, CALL_TIMEOUT_MS, &t, &err) < 0) {
		(void)fail(0, &err);
		return;
	}
	fprintf(stderr, "\nbackend %s (%s), guest kernel %s\n", t->backend, t->backend_reason,
		t->guest_kernel);
	if (run->pulled.total_ns) {
		time_line("pull", run->pulled.fetch_ns);
		time_line("unpack, rest", run->pulled.total_ns - run->pulled.fetch_ns);
	} else {
		fprintf(stderr, "  %-18s %11s\n", "pull, unpack", "was here");
	}
	time_line("VM start", t->vm_start_ns);
	time_line("agent ready", t->agent_ready_ns);
	time_line("pod ready", t->sandbox_ready_ns);
	time_line("container create", run->create_ns);
	time_line("container start", run->start_ns);
	husk__pod_times_response__free_unpacked(t, NULL);
}

/* ---- while it runs ---- */

static void *run_stop_thread(void *arg)
{
	struct run *run = arg;
	struct err err = { 0 };

	if (stop_container(run->c, run->ct_id, STOP_GRACE_S, &err) < 0)
		(void)fail(0, &err);
	return NULL;
}

/* First signal: stop with grace, while output is still shown; second: kill at once. */
static void on_signal(struct run *run, unsigned times)
{
	struct err err = { 0 };

	if (times == 1) {
		fprintf(stderr, "husk: stopping %s (again: kill it at once)\n", run->name);
		run->stopping = pthread_create(&run->stopper, NULL, run_stop_thread, run) == 0;
	} else if (stop_container(run->c, run->ct_id, 0, &err) < 0) {
		(void)fail(0, &err);
	}
}

static int watch(struct run *run, struct follow *f, struct waiter *w, int sig_fd)
{
	struct pollfd p[3] = { { .fd = w->fd, .events = POLLIN },
			       { .fd = follow_fd(f), .events = POLLIN },
			       { .fd = sig_fd, .events = POLLIN } };
	struct signalfd_siginfo si;
	struct err err = { 0 };
	unsigned signals = 0;

	do {
		if (follow_read(f, &err) < 0)
			return fail(EXIT_HUSK, &err);
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR) {
			(void)err_errno(&err, -errno, "wait for output");
			return fail(EXIT_HUSK, &err);
		}
		if (p[2].revents && read(sig_fd, &si, sizeof(si)) == sizeof(si))
			on_signal(run, ++signals);
	} while (!p[0].revents);
	if (follow_read(f, &err) < 0)
		return fail(EXIT_HUSK, &err);
	return -1;
}

static int attend(struct run *run, int sig_fd)
{
	cleanup_free char *path = str_fmt("%s/" LOG_NAME, run->log_dir);
	struct err err = { 0 };
	struct waiter *w;
	struct follow f;
	int code;

	if (!path)
		return fail_nomem(EXIT_HUSK);
	if (follow_open(&f, path, true, &err) < 0)
		return fail(EXIT_HUSK, &err);
	if (waiter_new(run->c->rpc, run->ct_id, &w, &err) < 0) {
		follow_close(&f);
		return fail(EXIT_HUSK, &err);
	}
	code = watch(run, &f, w, sig_fd);
	follow_close(&f);
	if (code >= 0)
		return code; /* the thread, and what it uses, end with the program */
	waiter_join(w);
	if (run->stopping)
		pthread_join(run->stopper, NULL);
	if (w->result < 0) {
		code = fail(EXIT_HUSK, &w->err);
	} else {
		code = w->resp->exit_code & 0xff;
		if (!str_empty(w->resp->message) && code != 0)
			fprintf(stderr, "husk: %s: %s\n", w->resp->reason, w->resp->message);
	}
	waiter_free(w);
	return code;
}

static int start_and_attend(struct run *run, int sig_fd)
{
	Cri__StartContainerRequest req = CRI__START_CONTAINER_REQUEST__INIT;
	uint64_t begin = now_mono_ns();
	struct err err = { 0 };

	req.container_id = run->ct_id;
	if (runtime_call(run->c, "StartContainer", &req, CALL_TIMEOUT_MS, NULL, &err) < 0)
		return fail(failed_start_code(run), &err);
	run->start_ns = now_mono_ns() - begin;
	if (run->detach) {
		printf("%s\n", run->ct_id);
		return 0;
	}
	return attend(run, sig_fd);
}

/* Everything after the image. A pod for which no container could be made is removed again. */
static int run_pod(struct run *run, int sig_fd)
{
	struct err err = { 0 }, ignored;
	struct request q;
	uint64_t begin;
	int code;

	fill_pod(run, &q);
	if (make_pod(run, &q, &err) < 0)
		return fail(EXIT_HUSK, &err);
	begin = now_mono_ns();
	if (make_container(run, &q, &err) < 0) {
		code = fail(EXIT_HUSK, &err);
		(void)!remove_pod(run->c, run->pod_id, &ignored);
		(void)!remove_tree(run->log_dir, NULL);
		return code;
	}
	run->create_ns = now_mono_ns() - begin;
	code = start_and_attend(run, sig_fd);
	if (run->show_times)
		print_times(run);
	if (run->rm && !run->detach) {
		if (remove_pod(run->c, run->pod_id, &err) < 0)
			(void)fail(0, &err);
		(void)!remove_tree(run->log_dir, NULL);
	}
	return code;
}

/* A name, the place of the log, the image. */
static int prepare(struct run *run, struct err *err)
{
	int r = 0;

	if (!run->name) {
		r = random_id(run->id);
		if (r < 0)
			return err_errno(err, r, "random name");
		run->id[12] = '\0';
		run->name = run->id;
	}
	r = run_log_dir(run->name, &run->log_dir, err);
	if (r == 0)
		r = pull_missing(run->c, run->image, run->always_pull, &run->pulled, err);
	return r;
}

static int run_run(struct cli *c, int argc, char **argv)
{
	struct run *run = calloc(1, sizeof(*run));
	cleanup_fd int sig_fd = -1;
	struct err err = { 0 };
	sigset_t set;
	int code;

	if (!run)
		return fail_nomem(EXIT_HUSK);
	run->c = c;
	code = parse(run, argc, argv);
	if (code)
		goto out;
	if (prepare(run, &err) < 0) {
		code = fail(EXIT_HUSK, &err);
		goto out;
	}
	/* From here on there is something to clean up, so Ctrl-C does not just end us. gRPC's
	 * threads take no signals (rpc_open). */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sig_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (sig_fd < 0)
		(void)err_errno(&err, -errno, "signalfd");
	code = sig_fd < 0 ? fail(EXIT_HUSK, &err) : run_pod(run, sig_fd);
out:
	free(run->log_dir);
	free(run->pulled.image_ref);
	free(run->pod_id);
	free(run->ct_id);
	free(run);
	return code;
}

const struct command cmd_run = {
	.name = "run",
	.args = "[OPTIONS] IMAGE [COMMAND [ARG...]]",
	.summary = "Run a container in a VM of its own and show its output",
	.help = "  --rm               remove the pod when the container has ended\n"
		"  --name NAME        name of container and host (default: 12 random hex digits)\n"
		"  -e, --env K=V      set a variable; -e K passes the value it has here\n"
		"  -d, --detach       print the container's id and do not wait\n"
		"  -w, --workdir DIR  directory to start in\n"
		"  -u, --user USER    user name or number\n"
		"  --pull             ask the registry even if the image is here\n"
		"  --times            tell at the end how long each step took\n\n"
		"  The exit code is the container's; 125: husk failed, 126: the command cannot be\n"
		"  executed, 127: there is no such command. Ctrl-C stops the container, a second\n"
		"  one kills it. Logs are kept under HUSK_LOG_DIR (default " DEFAULT_LOG_DIR ").\n",
	.run = run_run,
	.needs_server = true,
};
