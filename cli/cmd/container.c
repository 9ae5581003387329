/* husk exec, attach, logs, ps, pods, stop, rm: containers and pods that are there. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cri.h"
#include "cli/follow.h"
#include "cli/remote.h"
#include "cli/wait.h"

/* ---- exec ---- */

/* With a client for its streams: as long as the command runs. */
static int exec_streams(struct cli *c, const struct remote_options *o, Cri__ExecRequest *req)
{
	Cri__ExecResponse *resp;
	struct err err = { 0 };
	int code = EXIT_HUSK, r;

	req->stdin = o->in;
	req->tty = o->tty;
	req->stdout = true;
	req->stderr = !o->tty;
	r = runtime_call(c, "Exec", req, CALL_TIMEOUT_MS, &resp, &err);
	if (r < 0)
		return fail(EXIT_HUSK, &err);
	r = remote_run(resp->url, o, &code, &err);
	cri__exec_response__free_unpacked(resp, NULL);
	return r < 0 ? fail(code, &err) : code;
}

/* Whole output at the end, within a time limit. */
static int exec_sync(struct cli *c, Cri__ExecSyncRequest *req)
{
	Cri__ExecSyncResponse *resp;
	struct rpc_status st = { .exit_code = -1 };
	struct err err = { 0 };
	int code;

	if (rpc_call(c->rpc, &cri__runtime_service__descriptor, "ExecSync", &req->base, 0,
		     (ProtobufCMessage **)(void *)&resp, &st, &err) < 0)
		return fail(st.exit_code > 0 ? st.exit_code : EXIT_HUSK, &err);
	code = resp->exit_code & 0xff;
	if (write_all(STDOUT_FILENO, resp->stdout.data, resp->stdout.len) < 0 ||
	    write_all(STDERR_FILENO, resp->stderr.data, resp->stderr.len) < 0)
		code = EXIT_HUSK;
	cri__exec_sync_response__free_unpacked(resp, NULL);
	return code;
}

static int container_run_exec(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "timeout", required_argument, NULL, 'T' },
		{ "interactive", no_argument, NULL, 'i' },
		{ "tty", no_argument, NULL, 't' },
		{ 0 },
	};
	Cri__ExecSyncRequest sync = CRI__EXEC_SYNC_REQUEST__INIT;
	Cri__ExecRequest req = CRI__EXEC_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	struct remote_options streams = { 0 };
	Cri__Container *ct;
	struct err err = { 0 };
	int o;

	while ((o = next_option(&cmd_exec, argc, argv, "+:it", options)) != -1) {
		switch (o) {
		case 'T':
			if (str_to_i64(optarg, 0, INT32_MAX, &sync.timeout) < 0)
				return usage_error(&cmd_exec, "--timeout %s: seconds expected",
						   optarg);
			break;
		case 'i':
			streams.in = true;
			break;
		case 't':
			streams.tty = true;
			break;
		default:
			return EXIT_USAGE;
		}
	}
	if (argc - optind < 2)
		return usage_error(&cmd_exec, "a container and a command are needed");
	if (sync.timeout && (streams.in || streams.tty))
		return usage_error(&cmd_exec, "--timeout is not for -i and -t");
	if (streams.tty && !isatty(STDIN_FILENO))
		return usage_error(&cmd_exec, "-t needs a terminal as standard input");
	if (find_container(c, argv[optind], &list, &ct, &err) < 0)
		return fail(EXIT_HUSK, &err);
	req.container_id = sync.container_id = ct->id;
	req.cmd = sync.cmd = argv + optind + 1;
	req.n_cmd = sync.n_cmd = (size_t)(argc - optind - 1);
	return streams.in || streams.tty ? exec_streams(c, &streams, &req) : exec_sync(c, &sync);
}

const struct command cmd_exec = {
	.name = "exec",
	.args = "[-it] [--timeout SECONDS] CONTAINER COMMAND [ARG...]",
	.summary = "Run one more command in a running container",
	.help = "  -i, --interactive   pass standard input on\n"
		"  -t, --tty           give the command a terminal, of the size of this one\n"
		"  --timeout SECONDS   kill the command after this time\n\n"
		"  CONTAINER is a name or the beginning of an id. The exit code is the command's.\n"
		"  Without -i and -t the output is shown when the command has ended.\n",
	.run = container_run_exec,
	.needs_server = true,
};

/* ---- attach ---- */

static int container_run_attach(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "interactive", no_argument, NULL, 'i' },
		{ "tty", no_argument, NULL, 't' },
		{ 0 },
	};
	Cri__AttachRequest req = CRI__ATTACH_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	struct remote_options streams = { 0 };
	Cri__AttachResponse *resp;
	Cri__Container *ct;
	struct err err = { 0 };
	int o, code = EXIT_HUSK, r;

	while ((o = next_option(&cmd_attach, argc, argv, "+:it", options)) != -1) {
		if (o != 'i' && o != 't')
			return EXIT_USAGE;
		*(o == 'i' ? &streams.in : &streams.tty) = true;
	}
	if (argc - optind != 1)
		return usage_error(&cmd_attach, "a container is needed");
	if (streams.tty && !isatty(STDIN_FILENO))
		return usage_error(&cmd_attach, "-t needs a terminal as standard input");
	if (find_container(c, argv[optind], &list, &ct, &err) < 0)
		return fail(EXIT_HUSK, &err);
	streams.detach_keys = streams.tty;
	req.container_id = ct->id;
	req.stdin = streams.in;
	req.tty = streams.tty;
	req.stdout = true;
	req.stderr = !streams.tty;
	r = runtime_call(c, "Attach", &req, CALL_TIMEOUT_MS, &resp, &err);
	if (r < 0)
		return fail(EXIT_HUSK, &err);
	r = remote_run(resp->url, &streams, &code, &err);
	cri__attach_response__free_unpacked(resp, NULL);
	return r < 0 ? fail(code, &err) : code;
}

const struct command cmd_attach = {
	.name = "attach",
	.args = "[-it] CONTAINER",
	.summary = "See what a running container writes from now on, and write to it",
	.help = "  -i, --interactive   pass standard input on; the container must have one\n"
		"  -t, --tty           the container has a terminal: it gets the size of this "
		"one;\n"
		"                      Ctrl-P Ctrl-Q leaves it\n\n"
		"  Ends with the container. The exit code is 0, whatever the container's is.\n",
	.run = container_run_attach,
	.needs_server = true,
};

/* ---- logs ---- */

static int follow_until_exit(struct cli *c, struct follow *f, char *id, struct err *err)
{
	struct pollfd p[2] = { { .events = POLLIN }, { .fd = follow_fd(f), .events = POLLIN } };
	struct waiter *w;
	int r = waiter_new(c->rpc, id, &w, err);

	if (r < 0)
		return r;
	p[0].fd = w->fd;
	do {
		r = follow_read(f, err);
		if (r == 0 && poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			r = err_errno(err, -errno, "wait for output");
	} while (r == 0 && !p[0].revents);
	if (r < 0)
		return r; /* the thread, and what it uses, end with the program */
	waiter_join(w);
	waiter_free(w);
	return follow_read(f, err);
}

static int container_run_logs(struct cli *c, int argc, char **argv)
{
	Cri__ContainerStatusRequest req = CRI__CONTAINER_STATUS_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	Cri__ContainerStatusResponse *resp;
	Cri__Container *ct;
	struct err err = { 0 };
	struct follow f;
	bool tail = false;
	int o, r;

	while ((o = next_option(&cmd_logs, argc, argv, "+:f", NULL)) != -1) {
		if (o != 'f')
			return EXIT_USAGE;
		tail = true;
	}
	if (argc - optind != 1)
		return usage_error(&cmd_logs, "no container given");
	if (find_container(c, argv[optind], &list, &ct, &err) < 0)
		return fail(1, &err);
	req.container_id = ct->id;
	if (runtime_call(c, "ContainerStatus", &req, CALL_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	if (!resp->status || str_empty(resp->status->log_path))
		r = err_set(&err, -ENOENT, "%s has no log: it was created without a log path",
			    argv[optind]);
	else
		r = follow_open(&f, resp->status->log_path, tail, &err);
	cri__container_status_response__free_unpacked(resp, NULL);
	if (r < 0)
		return fail(1, &err);
	r = tail ? follow_until_exit(c, &f, ct->id, &err) : follow_read(&f, &err);
	follow_close(&f);
	return r < 0 ? fail(1, &err) : 0;
}

const struct command cmd_logs = {
	.name = "logs",
	.args = "[-f] CONTAINER",
	.summary = "Show what a container has written",
	.help = "  -f   follow the output until the container ends\n\n"
		"  Its standard output goes to standard output, its standard error to standard "
		"error.\n",
	.run = container_run_logs,
	.needs_server = true,
};

/* ---- ps, pods ---- */

static json_t *container_json(Cri__Container *const ct)
{
	const char *name = label_of(ct, LABEL_NAME);
	char created[40];

	return json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:s}", "id", ct->id, "name",
			 name		? name
			 : ct->metadata ? ct->metadata->name
					: NULL,
			 "state", container_state_text(ct->state), "created",
			 time_text(ct->created_at, created), "pod", ct->pod_sandbox_id, "image",
			 ct->image ? ct->image->image : ct->image_ref, "image_id", ct->image_id);
}

static void container_row(struct table *t, Cri__Container *const ct, bool whole)
{
	const char *name = label_of(ct, LABEL_NAME);
	char id[SHORT_ID + 1], pod[SHORT_ID + 1], age[32];

	table_cell(t, id_text(ct->id, whole, id));
	table_cell(t, name ? name : ct->metadata ? ct->metadata->name : "");
	table_cell(t, container_state_text(ct->state));
	table_cell(t, human_age(ct->created_at, age));
	table_cell(t, id_text(ct->pod_sandbox_id, whole, pod));
	table_cell(t, familiar_name(ct->image ? ct->image->image : ct->image_ref));
}

struct list_options {
	bool all, quiet, json, whole;
};

/* Options of ps and pods; the exit code when they are wrong. */
static int parse_list(const struct command *cmd, struct list_options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, 'a' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ "no-trunc", no_argument, NULL, 'N' },
		{ 0 },
	};
	int k;

	while ((k = next_option(cmd, argc, argv, ":aq", options)) != -1) {
		if (k == '?')
			return EXIT_USAGE;
		o->all |= k == 'a';
		o->quiet |= k == 'q';
		o->json |= k == 'J';
		o->whole |= k == 'N';
	}
	return optind < argc ? usage_error(cmd, "unknown argument '%s'", argv[optind]) : 0;
}

static int container_run_ps(struct cli *c, int argc, char **argv)
{
	Cri__ListContainersRequest req = CRI__LIST_CONTAINERS_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	struct list_options o = { 0 };
	struct err err = { 0 };
	char id[SHORT_ID + 1];
	json_t *json = NULL;
	struct table t;
	int code = parse_list(&cmd_ps, &o, argc, argv);

	if (code)
		return code;
	if (runtime_call(c, "ListContainers", &req, CALL_TIMEOUT_MS, &list, &err) < 0)
		return fail(1, &err);
	if (o.json)
		json = json_array();
	else if (!o.quiet)
		table_init(&t, "ID|NAME|STATE|CREATED|POD|IMAGE");
	for (size_t i = 0; i < list->n_containers; i++) {
		Cri__Container *ct = list->containers[i];

		if (!o.all && ct->state != CRI__CONTAINER_STATE__CONTAINER_RUNNING)
			continue;
		if (o.json)
			(void)json_array_append_new(json, container_json(ct));
		else if (o.quiet)
			printf("%s\n", id_text(ct->id, o.whole, id));
		else
			container_row(&t, ct, o.whole);
	}
	if (o.json)
		return print_json(json, true);
	return !o.quiet && !table_print(&t) ? 1 : 0;
}

const struct command cmd_ps = {
	.name = "ps",
	.args = "[-a] [-q | --json] [--no-trunc]",
	.summary = "List containers",
	.help = "  -a, --all     also those that are not running\n"
		"  -q, --quiet   ids only\n"
		"  --json        an array of objects\n"
		"  --no-trunc    whole ids\n",
	.run = container_run_ps,
	.needs_server = true,
};

static json_t *pod_json(const Cri__PodSandbox *p, bool ready)
{
	char created[40];

	return json_pack("{s:s, s:s, s:s, s:b, s:s}", "id", p->id, "name",
			 p->metadata ? p->metadata->name : "", "namespace",
			 p->metadata ? p->metadata->namespace_ : "", "ready", ready, "created",
			 time_text(p->created_at, created));
}

static int container_run_pods(struct cli *c, int argc, char **argv)
{
	Cri__ListPodSandboxRequest req = CRI__LIST_POD_SANDBOX_REQUEST__INIT;
	Cri__ListPodSandboxResponse *resp;
	struct list_options o = { 0 };
	struct err err = { 0 };
	char age[32], id[SHORT_ID + 1];
	json_t *json = NULL;
	struct table t;
	int code = parse_list(&cmd_pods, &o, argc, argv);

	if (code)
		return code;
	if (runtime_call(c, "ListPodSandbox", &req, CALL_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	if (o.json)
		json = json_array();
	else if (!o.quiet)
		table_init(&t, "ID|NAME|NAMESPACE|STATE|CREATED");
	for (size_t i = 0; i < resp->n_items; i++) {
		const Cri__PodSandbox *p = resp->items[i];
		bool ready = p->state == CRI__POD_SANDBOX_STATE__SANDBOX_READY;

		if (o.json) {
			(void)json_array_append_new(json, pod_json(p, ready));
		} else if (o.quiet) {
			printf("%s\n", id_text(p->id, o.whole, id));
		} else {
			table_cell(&t, id_text(p->id, o.whole, id));
			table_cell(&t, p->metadata ? p->metadata->name : "");
			table_cell(&t, p->metadata ? p->metadata->namespace_ : "");
			table_cell(&t, ready ? "ready" : "not ready");
			table_cell(&t, human_age(p->created_at, age));
		}
	}
	cri__list_pod_sandbox_response__free_unpacked(resp, NULL);
	if (o.json)
		return print_json(json, true);
	return !o.quiet && !table_print(&t) ? 1 : 0;
}

const struct command cmd_pods = {
	.name = "pods",
	.args = "[-q | --json] [--no-trunc]",
	.summary = "List pods: each is one virtual machine",
	.help = "  -q, --quiet   ids only\n"
		"  --json        an array of objects\n"
		"  --no-trunc    whole ids\n",
	.run = container_run_pods,
	.needs_server = true,
};

/* ---- stop, rm ---- */

static int container_run_stop(struct cli *c, int argc, char **argv)
{
	int64_t grace = STOP_GRACE_S;
	int o, code = 0;

	while ((o = next_option(&cmd_stop, argc, argv, "+:t:", NULL)) != -1) {
		if (o != 't')
			return EXIT_USAGE;
		if (str_to_i64(optarg, 0, 86400, &grace) < 0)
			return usage_error(&cmd_stop, "-t %s: seconds expected, at most 86400",
					   optarg);
	}
	if (optind == argc)
		return usage_error(&cmd_stop, "no container given");
	for (int i = optind; i < argc; i++) {
		cleanup_containers Cri__ListContainersResponse *list = NULL;
		Cri__Container *ct;
		struct err err = { 0 };

		if (find_container(c, argv[i], &list, &ct, &err) < 0 ||
		    stop_container(c, ct->id, grace, &err) < 0)
			code = fail(1, &err);
		else
			printf("%s\n", argv[i]);
	}
	return code;
}

const struct command cmd_stop = {
	.name = "stop",
	.args = "[-t SECONDS] CONTAINER...",
	.summary = "Stop containers",
	.help = "  -t SECONDS   time between the stop signal and SIGKILL (default 10)\n",
	.run = container_run_stop,
	.needs_server = true,
};

/* In pods that others made the container alone goes. */
static int remove_one(struct cli *c, const char *ref, bool force, struct err *err)
{
	Cri__RemoveContainerRequest req = CRI__REMOVE_CONTAINER_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	Cri__Container *ct;
	int r;

	r = find_container(c, ref, &list, &ct, err);
	if (r < 0)
		return r;
	if (ct->state == CRI__CONTAINER_STATE__CONTAINER_RUNNING && !force)
		return err_set(err, -EBUSY, "%s is running; stop it first, or use 'husk rm -f'",
			       ref);
	if (!label_of(ct, LABEL_RUN)) {
		req.container_id = ct->id;
		return runtime_call(c, "RemoveContainer", &req, POD_TIMEOUT_MS, NULL, err);
	}
	return remove_run(c, ct, err);
}

static int container_run_rm(struct cli *c, int argc, char **argv)
{
	bool force = false;
	int o, code = 0;

	while ((o = next_option(&cmd_rm, argc, argv, "+:f", NULL)) != -1) {
		if (o != 'f')
			return EXIT_USAGE;
		force = true;
	}
	if (optind == argc)
		return usage_error(&cmd_rm, "no container given");
	for (int i = optind; i < argc; i++) {
		struct err err = { 0 };

		if (remove_one(c, argv[i], force, &err) < 0)
			code = fail(1, &err);
		else
			printf("%s\n", argv[i]);
	}
	return code;
}

const struct command cmd_rm = {
	.name = "rm",
	.args = "[-f] CONTAINER...",
	.summary = "Remove containers, and the pods that 'husk run' made for them",
	.help = "  -f   also when it is running\n",
	.run = container_run_rm,
	.needs_server = true,
};
