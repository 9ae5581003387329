/*
 * RuntimeService against a shim that pretends: the life of a pod and a container, what a client is
 * told when something fails (whole messages), and a huskd that comes back.
 */
#include "test/lib/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/rpc.h"
#include "cri/huskd.h"
#include "cri/paths.h"
#include "cri/runtime/backend.h"
#include "cri/runtime/exec/exec.h"
#include "cri/runtime/exec/sync.h"
#include "cri/runtime/recover.h"
#include "cri/runtime/service.h"
#include "cri/store/statedb.h"
#include "cri/stream/server.h"
#include "image/image.h"
#include "test/lib/fake_shim.h"
#include "test/lib/rpc_fixture.h"

#define RT (&cri__runtime_service__descriptor)

static struct {
	struct rpc_fixture s;
	struct fake_shim shim;
	struct huskd d;
	struct backend backend;
	struct rpc *rpc;
	char dir[64];
	int locks[2];
	unsigned discards;		 /* directories of containers, not removed on the loop */
	unsigned holds, releases;	 /* of the image */
	size_t exec_stdout, exec_stderr; /* bytes of the last ExecSync */
} g;

/* ---- the image store: one image "img", without layers ---- */

int image_get(struct image_store *s, const char *ref, struct image_info **ret, struct err *err)
{
	static char *none[] = { NULL }, *cmd[] = { (char *)"sh", NULL };
	struct image_info *i;

	if (!str_eq(ref, "img"))
		return err_set(err, -ENOENT, "no such image");
	i = calloc(1, sizeof(*i));
	assert_non_null(i);
	i->id = (char *)"sha256:abc";
	i->repo_tags = i->repo_digests = none;
	i->config = (struct image_config){
		.entrypoint = none,
		.cmd = cmd,
		.env = none,
		.working_dir = (char *)"",
		.user = (char *)"",
		.stop_signal = (char *)"",
	};
	*ret = i;
	return 0;
}

void image_info_freep(struct image_info **i)
{
	free(*i);
}

int image_hold(struct image_store *s, const char *id, const char *holder, struct err *err)
{
	g.holds++;
	return 0;
}

int image_release(struct image_store *s, const char *holder, struct err *err)
{
	g.releases++;
	return 0;
}

static int no_strings(char ***ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

int image_holders(struct image_store *s, char ***ret, struct err *err)
{
	return no_strings(ret);
}

int image_layers(struct image_store *s, const char *id, char ***ret, struct err *err)
{
	return no_strings(ret);
}

struct scratch {
	char *path;
	wait_fn done;
	void *arg;
};

static void make_scratch(void *arg)
{
	struct scratch *x = arg;
	char *slash = strrchr(x->path, '/');
	struct err err = { 0 };

	*slash = '\0';
	assert_int_equal(mkdir_p(x->path, 0700, NULL), 0);
	*slash = '/';
	assert_int_equal(write_file_atomic(x->path, "", 0, 0600, false, NULL), 0);
	x->done(x->arg, 0, &err);
	free(x->path);
	free(x);
}

int image_scratch_create(struct image_store *s, const char *path,
			 void (*done)(void *arg, int code, const struct err *err), void *arg,
			 struct err *err)
{
	struct scratch *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	*x = (struct scratch){ .path = strdup(path), .done = done, .arg = arg };
	return loop_post(g.d.loop, make_scratch, x);
}

void image_discard(struct image_store *s, const char *path)
{
	if (access(path, F_OK) == 0 && remove_tree(path, NULL) == 0)
		g.discards++;
}

/* ---- huskd, on the server's thread ---- */

static void recovered(struct huskd *d)
{
}

static void begin(struct rpc_fixture *f)
{
	cleanup_free char *db = NULL;

	g.d.loop = f->loop;
	g.d.backend = &g.backend;
	g.d.execs = 0;
	fake_shim_open(&g.shim, f->loop);
	assert_int_equal(path_prepare(&g.d, g.locks, NULL), 0);
	db = path_db(&g.d);
	assert_int_equal(statedb_open(f->loop, db, &g.d.db, NULL), 0);
	state_init(&g.d.state, g.d.db, &g.d);
	assert_int_equal(state_load(&g.d.state, NULL), 0);
	assert_int_equal(
		stream_server_new(f->loop, "127.0.0.1", 0, STREAM_IDLE_S, &g.d.streams, NULL), 0);
	assert_int_equal(recover_start(&g.d, recovered, NULL), 0);
}

/* As a huskd that ends: connections to shims just end. */
static void end(struct rpc_fixture *f)
{
	struct pod *p;

	stream_server_free(g.d.streams);
	assert_int_equal(g.d.exec_waiting, 0);
	TAILQ_FOREACH(p, &g.d.state.pods, link)
	ttrpc_client_free(take_ptr(&p->shim));
	state_fini(&g.d.state);
	statedb_close(g.d.db);
	fake_shim_close(&g.shim);
	fd_close(&g.locks[0]);
	fd_close(&g.locks[1]);
}

static const struct rpc_service services[] = {
	{ &cri__runtime_service__descriptor, runtime_service_methods, &g.d, NULL },
};

static void start_huskd(void)
{
	g.s = (struct rpc_fixture){ .begin = begin, .end = end };
	rpc_fixture_start(&g.s, services, ARRAY_SIZE(services));
	log_init("test", STDERR_FILENO, LOG_ERROR + 1, false);
	assert_int_equal(rpc_open(g.s.address, &g.rpc, NULL), 0);
}

static void stop_huskd(void)
{
	rpc_close(g.rpc);
	assert_int_equal(rpc_fixture_stop(&g.s), 0);
}

static int setup(void **state)
{
	static char root[96], run[96], none[] = "";

	(void)snprintf(g.dir, sizeof(g.dir), "/tmp/husk-runtime-XXXXXX");
	assert_non_null(mkdtemp(g.dir));
	(void)snprintf(root, sizeof(root), "%s/root", g.dir);
	(void)snprintf(run, sizeof(run), "%s/run", g.dir);
	fake_shim_init(&g.shim, g.dir);
	g.d.config = (struct config){
		.root = root,
		.state = run,
		.listen = none,
		.backend = (char *)"qemu",
		.shim = g.shim.program,
		.log_level = none,
		.log_format = none,
		.network_mode = (char *)"none",
	};
	start_huskd();
	return 0;
}

static int teardown(void **state)
{
	stop_huskd();
	return remove_tree(g.dir, NULL);
}

/* ---- calls ---- */

/* Returns the answer when `want` is NULL; else the call must fail with this text, and nothing
 * else. */
static ProtobufCMessage *call(const char *method, const ProtobufCMessage *req, int code,
			      const char *want)
{
	ProtobufCMessage *resp = NULL;
	struct err err = { 0 };
	int r = rpc_call(g.rpc, RT, method, req, 20000, &resp, NULL, &err);

	if (!want) {
		assert_ok(r, &err);
	} else {
		assert_string_equal(err.msg, want);
		assert_int_equal(r, code);
	}
	return resp;
}

static void call_empty(const char *method, const ProtobufCMessage *req, int code, const char *want)
{
	ProtobufCMessage *resp = call(method, req, code, want);

	if (resp)
		protobuf_c_message_free_unpacked(resp, NULL);
}

struct pod_request {
	Cri__RunPodSandboxRequest m;
	Cri__PodSandboxConfig config;
	Cri__PodSandboxMetadata metadata;
	Cri__LinuxPodSandboxConfig lin;
	Cri__LinuxSandboxSecurityContext security;
	Cri__NamespaceOption namespaces;
};

static void pod_request(struct pod_request *q, const char *name)
{
	cri__run_pod_sandbox_request__init(&q->m);
	cri__pod_sandbox_config__init(&q->config);
	cri__pod_sandbox_metadata__init(&q->metadata);
	cri__linux_pod_sandbox_config__init(&q->lin);
	cri__linux_sandbox_security_context__init(&q->security);
	cri__namespace_option__init(&q->namespaces);
	q->m.config = &q->config;
	q->config.metadata = &q->metadata;
	q->config.linux = &q->lin;
	q->lin.security_context = &q->security;
	q->security.namespace_options = &q->namespaces;
	q->metadata.name = (char *)name;
	q->metadata.namespace_ = (char *)"ns";
	q->metadata.uid = (char *)"u";
}

static void run_pod(const char *name, char id[65], int code, const char *want)
{
	Cri__RunPodSandboxResponse *resp;
	struct pod_request q;

	pod_request(&q, name);
	resp = (void *)call("RunPodSandbox", &q.m.base, code, want);
	if (!resp)
		return;
	(void)snprintf(id, 65, "%s", resp->pod_sandbox_id);
	cri__run_pod_sandbox_response__free_unpacked(resp, NULL);
}

static void remove_pod(const char *id)
{
	Cri__RemovePodSandboxRequest q = CRI__REMOVE_POD_SANDBOX_REQUEST__INIT;

	q.pod_sandbox_id = (char *)id;
	call_empty("RemovePodSandbox", &q.base, 0, NULL);
}

struct container_request {
	Cri__CreateContainerRequest m;
	Cri__ContainerConfig config;
	Cri__ContainerMetadata metadata;
	Cri__ImageSpec image;
	Cri__Mount mount, *mounts[1];
};

static void container_request(struct container_request *q, const char *pod, const char *name)
{
	cri__create_container_request__init(&q->m);
	cri__container_config__init(&q->config);
	cri__container_metadata__init(&q->metadata);
	cri__image_spec__init(&q->image);
	cri__mount__init(&q->mount);
	q->m.pod_sandbox_id = (char *)pod;
	q->m.config = &q->config;
	q->config.metadata = &q->metadata;
	q->config.image = &q->image;
	q->metadata.name = (char *)name;
	q->image.image = (char *)"img";
	q->mounts[0] = &q->mount;
	q->config.mounts = q->mounts;
	q->mount.container_path = (char *)"/data";
}

static void send_create(struct container_request *q, char id[65], int code, const char *want)
{
	Cri__CreateContainerResponse *resp =
		(void *)call("CreateContainer", &q->m.base, code, want);

	if (!resp)
		return;
	(void)snprintf(id, 65, "%s", resp->container_id);
	cri__create_container_response__free_unpacked(resp, NULL);
}

static void create(const char *pod, const char *name, char id[65], int code, const char *want)
{
	struct container_request q;

	container_request(&q, pod, name);
	send_create(&q, id, code, want);
}

static void start(const char *id, int code, const char *want)
{
	Cri__StartContainerRequest q = CRI__START_CONTAINER_REQUEST__INIT;

	q.container_id = (char *)id;
	call_empty("StartContainer", &q.base, code, want);
}

static void stop(const char *id)
{
	Cri__StopContainerRequest q = CRI__STOP_CONTAINER_REQUEST__INIT;

	q.container_id = (char *)id;
	call_empty("StopContainer", &q.base, 0, NULL);
}

static int run_command(const char *id, int code, const char *want)
{
	Cri__ExecSyncRequest q = CRI__EXEC_SYNC_REQUEST__INIT;
	char *cmd[] = { (char *)"true" };
	Cri__ExecSyncResponse *resp;
	int exit_code;

	q.container_id = (char *)id;
	q.cmd = cmd;
	q.n_cmd = 1;
	resp = (void *)call("ExecSync", &q.base, code, want);
	if (!resp)
		return -1;
	exit_code = resp->exit_code;
	g.exec_stdout = resp->stdout.len;
	g.exec_stderr = resp->stderr.len;
	cri__exec_sync_response__free_unpacked(resp, NULL);
	return exit_code;
}

static void reopen_log(const char *id, int code, const char *want)
{
	Cri__ReopenContainerLogRequest q = CRI__REOPEN_CONTAINER_LOG_REQUEST__INIT;

	q.container_id = (char *)id;
	call_empty("ReopenContainerLog", &q.base, code, want);
}

/* The state that CRI shows, its exit code and reason. */
static void assert_container(const char *id, Cri__ContainerState state, int exit_code,
			     const char *reason)
{
	Cri__ContainerStatusRequest q = CRI__CONTAINER_STATUS_REQUEST__INIT;
	Cri__ContainerStatusResponse *resp;

	q.container_id = (char *)id;
	resp = (void *)call("ContainerStatus", &q.base, 0, NULL);
	assert_int_equal(resp->status->state, state);
	assert_int_equal(resp->status->exit_code, exit_code);
	assert_string_equal(resp->status->reason, reason);
	cri__container_status_response__free_unpacked(resp, NULL);
}

static void shim_fails(const char *method, enum rpc_code code, const char *text)
{
	g.shim.code = code;
	g.shim.text = text;
	g.shim.fails = method;
}

#define RUNNING CRI__CONTAINER_STATE__CONTAINER_RUNNING
#define CREATED CRI__CONTAINER_STATE__CONTAINER_CREATED
#define EXITED CRI__CONTAINER_STATE__CONTAINER_EXITED

/* ---- tests ---- */

static void life(void **state)
{
	char pod[65], a[65], b[65];
	unsigned releases = g.releases, discards = g.discards;

	run_pod("life", pod, 0, NULL);
	create(pod, "a", a, 0, NULL);
	create(pod, "b", b, 0, NULL);
	assert_container(a, CREATED, 0, "");
	start(a, 0, NULL);
	assert_container(a, RUNNING, 0, "");
	assert_int_equal(run_command(a, 0, NULL), 3);
	stop(a);
	assert_container(a, EXITED, 137, "Error");
	assert_container(b, CREATED, 0, "");
	remove_pod(pod);
	assert_int_equal(g.d.state.n_pods, 0);
	assert_int_equal(g.releases, releases + 2);
	assert_int_equal(g.discards, discards + 2);
}

/* What a client of RunPodSandbox is told: the pod's name, then what the shim said. */
static void pod_errors(void **state)
{
	static const char inner[] =
		"start the VM: monitor: guest kernel /k (--kernel; made by 'make kernel'): "
		"No such file or directory";
	Cri__PortMapping port = CRI__PORT_MAPPING__INIT, *ports[] = { &port };
	char pod[65], want[300];
	struct pod_request q;

	shim_fails("CreateSandbox", RPC_INVALID_ARGUMENT, "options of type \"x\"");
	run_pod("web", pod, -EINVAL, "pod web: options of type \"x\"");
	(void)snprintf(want, sizeof(want), "pod web: %s", inner);
	shim_fails("StartSandbox", RPC_UNKNOWN, inner);
	run_pod("web", pod, -EIO, want);
	/* A file that is missing on our side is not a pod that is. */
	shim_fails("StartSandbox", RPC_NOT_FOUND, inner);
	run_pod("web", pod, -EIO, want);
	shim_fails(NULL, 0, NULL);

	g.d.config.shim = (char *)"/no/such/shim";
	run_pod("web", pod, -EIO,
		"pod web: the shim: start /no/such/shim: No such file or directory");
	g.d.config.shim = g.shim.program;

	pod_request(&q, "web");
	q.m.runtime_handler = (char *)"runc";
	call_empty("RunPodSandbox", &q.m.base, -EINVAL,
		   "pod web: no runtime handler \"runc\" (there are \"\" and \"husk\")");
	pod_request(&q, "web");
	q.namespaces.network = CRI__NAMESPACE_MODE__NODE;
	call_empty("RunPodSandbox", &q.m.base, -EBUSY,
		   "pod web: the host's network cannot be seen from a pod in a virtual machine; "
		   "run this pod with another runtime handler");
	pod_request(&q, "web");
	port.container_port = 80;
	q.config.n_port_mappings = 1;
	q.config.port_mappings = ports;
	port.host_port = 8080;
	call_empty("RunPodSandbox", &q.m.base, -EBUSY,
		   "pod web: host port 8080: pods have no network here: network.mode is none");
	pod_request(&q, "");
	call_empty("RunPodSandbox", &q.m.base, -EINVAL, "metadata.name is missing");

	run_pod("web", pod, 0, NULL);
	(void)snprintf(want, sizeof(want), "pod ns/web (uid u, attempt 0) exists with id %s", pod);
	run_pod("web", pod, -EEXIST, want);
	remove_pod(pod);
	/* Nothing of the failures is left. */
	assert_int_equal(g.d.state.n_pods, 0);
}

static void container_errors(void **state)
{
	struct container_request q;
	char pod[65], id[65], want[300];

	create("0123", "app", id, -ENOENT, "container app: no pod sandbox 0123");
	run_pod("web", pod, 0, NULL);
	container_request(&q, pod, "app");
	q.image.image = (char *)"nginx";
	send_create(&q, id, -ENOENT, "container app: image nginx: no such image");
	container_request(&q, pod, "app");
	q.config.n_mounts = 1;
	send_create(&q, id, -ENOSYS,
		    "container app: mounts are not implemented yet (/data); the container's own "
		    "disk is writable");
	shim_fails("Create", RPC_INVALID_ARGUMENT, "rootfs: more than 64 layers");
	create(pod, "app", id, -EINVAL, "container app: rootfs: more than 64 layers");
	shim_fails(NULL, 0, NULL);

	create(pod, "app", id, 0, NULL);
	(void)snprintf(want, sizeof(want), "container %s is not running", id);
	(void)run_command(id, -EBUSY, want);
	reopen_log(id, -EBUSY, want);
	g.shim.start_exit = 127;
	shim_fails("Start", RPC_NOT_FOUND, "start \"/nope\": No such file or directory");
	start(id, -EIO, "container app: start \"/nope\": No such file or directory");
	assert_container(id, EXITED, 127, "StartError");
	(void)snprintf(want, sizeof(want), "container %s was started before", id);
	start(id, -EBUSY, want);

	create(pod, "app2", id, 0, NULL);
	shim_fails(NULL, 0, NULL);
	start(id, 0, NULL);
	shim_fails("Start", RPC_NOT_FOUND, "start \"true\": No such file or directory");
	(void)snprintf(want, sizeof(want),
		       "container %s: start \"true\": No such file or directory", id);
	assert_int_equal(run_command(id, -EIO, want), -1);
	shim_fails("ReopenLog", RPC_NOT_FOUND, "the container has no log");
	reopen_log(id, -ENOENT, "the container has no log");
	shim_fails(NULL, 0, NULL);
	g.shim.start_exit = 0;
	remove_pod(pod);
}

static void wait_state(const char *id, Cri__ContainerState state)
{
	Cri__ContainerStatusRequest q = CRI__CONTAINER_STATUS_REQUEST__INIT;
	Cri__ContainerStatusResponse *resp;
	bool there = false;

	q.container_id = (char *)id;
	for (int i = 0; i < 200 && !there; i++) {
		resp = (void *)call("ContainerStatus", &q.base, 0, NULL);
		there = resp->status->state == state;
		cri__container_status_response__free_unpacked(resp, NULL);
		if (!there)
			(void)usleep(20000);
	}
	assert_true(there);
}

/* A huskd that comes back asks the shim, and believes it. */
static void comes_back(void **state)
{
	char pod[65], created[65], running[65], ended[65], lost[65];

	run_pod("back", pod, 0, NULL);
	create(pod, "created", created, 0, NULL);
	create(pod, "running", running, 0, NULL);
	create(pod, "ended", ended, 0, NULL);
	create(pod, "lost", lost, 0, NULL);
	start(running, 0, NULL);
	start(ended, 0, NULL);
	start(lost, 0, NULL);

	stop_huskd();
	fake_shim_exit(fake_shim_task(&g.shim, ended, ""), 5);
	*fake_shim_task(&g.shim, lost, "") = (struct fake_task){ 0 };
	start_huskd();

	wait_state(ended, EXITED);
	assert_container(ended, EXITED, 5, "Error");
	wait_state(lost, EXITED);
	assert_container(lost, EXITED, 255, "Unknown");
	assert_container(created, CREATED, 0, "");
	assert_container(running, RUNNING, 0, "");
	start(created, 0, NULL);
	stop(created);
	assert_container(created, EXITED, 137, "Error");
	stop(running);
	assert_container(running, EXITED, 137, "Error");
	remove_pod(pod);
	assert_int_equal(g.d.state.n_pods, 0);
}

/* Given back after the answer. */
static void wait_exec_bytes(size_t want)
{
	for (int i = 0; i < 200 && __atomic_load_n(&g.d.exec_bytes, __ATOMIC_SEQ_CST) != want; i++)
		(void)usleep(20000);
	assert_int_equal(__atomic_load_n(&g.d.exec_bytes, __ATOMIC_SEQ_CST), want);
}

/* The output of all commands has one budget; beyond it each has its first bytes only. */
static void exec_output(void **state)
{
	char pod[65], id[65];

	run_pod("out", pod, 0, NULL);
	create(pod, "c", id, 0, NULL);
	start(id, 0, NULL);
	g.shim.exec_output = 50000;
	assert_int_equal(run_command(id, 0, NULL), 3);
	assert_int_equal(g.exec_stdout, 50000);
	assert_int_equal(g.exec_stderr, 50000);
	wait_exec_bytes(0);
	g.d.exec_bytes = EXEC_OUTPUT_TOTAL;
	assert_int_equal(run_command(id, 0, NULL), 3);
	assert_int_equal(g.exec_stdout, EXEC_OUTPUT_SURE);
	assert_int_equal(g.exec_stderr, EXEC_OUTPUT_SURE);
	wait_exec_bytes(EXEC_OUTPUT_TOTAL);
	/* Both streams share what is left: 36 KiB, after the 16 KiB that each has for sure. */
	g.d.exec_bytes = EXEC_OUTPUT_TOTAL - 36 * KIB;
	assert_int_equal(run_command(id, 0, NULL), 3);
	assert_int_equal(g.exec_stdout + g.exec_stderr, 36 * KIB);
	wait_exec_bytes(EXEC_OUTPUT_TOTAL - 36 * KIB);
	g.d.exec_bytes = 0;
	g.shim.exec_output = 0;
	remove_pod(pod);
}

/* ---- Exec ---- */

static Cri__ExecRequest exec_request(const char *id)
{
	static char *cmd[] = { (char *)"true" };
	Cri__ExecRequest q = CRI__EXEC_REQUEST__INIT;

	q.container_id = (char *)id;
	q.cmd = cmd;
	q.n_cmd = 1;
	q.stdout = true;
	return q;
}

/* *fd: a client that has come with the URL, over WebSocket; NULL = nobody comes. */
static void run_exec(const Cri__ExecRequest *q, int *fd, int code, const char *want)
{
	Cri__ExecResponse *resp = (void *)call("Exec", &q->base, code, want);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	char path[128], text[512];
	unsigned port;

	if (!resp)
		return;
	assert_int_equal(sscanf(resp->url, "http://127.0.0.1:%u%127s", &port, path), 2);
	assert_int_equal(strncmp(path, "/exec/", 6), 0);
	cri__exec_response__free_unpacked(resp, NULL);
	if (!fd)
		return;
	a.sin_port = htons((uint16_t)port);
	*fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*fd, (struct sockaddr *)&a, sizeof(a)), 0);
	(void)snprintf(text, sizeof(text),
		       "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
		       "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
		       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		       "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
		       path);
	assert_int_equal(write(*fd, text, strlen(text)), strlen(text));
}

/* Reads until the server has sent its last, which must contain `want`. */
static void expect_end(int fd, const char *want)
{
	char text[8192];
	size_t n = 0;
	ssize_t got;

	while ((got = read(fd, text + n, sizeof(text) - n)) > 0)
		n += (size_t)got;
	assert_int_equal(got, 0);
	assert_non_null(memmem(text, n, want, strlen(want)));
	(void)close(fd);
}

static void wait_exec_streams(unsigned want)
{
	for (int i = 0; i < 200 && __atomic_load_n(&g.d.exec_streams, __ATOMIC_SEQ_CST) != want;
	     i++)
		(void)usleep(20000);
	assert_int_equal(__atomic_load_n(&g.d.exec_streams, __ATOMIC_SEQ_CST), want);
}

static void exec_errors(void **state)
{
	char pod[65], id[65];
	cleanup_free char *not_running = NULL;
	Cri__ExecRequest q;

	run_pod("execs", pod, 0, NULL);
	create(pod, "c", id, 0, NULL);
	not_running = str_fmt("container %s is not running", id);
	q = exec_request(id);
	run_exec(&q, NULL, -EBUSY, not_running);
	start(id, 0, NULL);
	q.tty = q.stderr = true;
	run_exec(&q, NULL, -EINVAL, "a terminal has no stderr of its own");
	q.tty = q.stdout = q.stderr = false;
	run_exec(&q, NULL, -EINVAL, "none of stdin, stdout and stderr");
	q = exec_request(id);
	q.n_cmd = 0;
	run_exec(&q, NULL, -EINVAL, "no command");
	q = exec_request("");
	run_exec(&q, NULL, -EINVAL, "no container id");
	q = exec_request("nosuch");
	run_exec(&q, NULL, -ENOENT, "no container nosuch");
	remove_pod(pod);
}

/* What a client is told, and that nothing of a command is left when it goes. */
static void exec_streams(void **state)
{
	static char large[EXEC_WAITING_MAX / 2];
	char *cmd[] = { large };
	char pod[65], id[65];
	Cri__ExecRequest q;
	int fd;

	run_pod("streams", pod, 0, NULL);
	create(pod, "c", id, 0, NULL);
	start(id, 0, NULL);
	q = exec_request(id);
	q.stderr = true;
	run_exec(&q, &fd, 0, NULL);
	expect_end(fd, "\"reason\":\"ExitCode\",\"message\":\"3\"");
	wait_exec_streams(0);

	g.shim.fails = "Start";
	g.shim.code = RPC_NOT_FOUND;
	g.shim.text = "start \"x\": no such file";
	run_exec(&q, &fd, 0, NULL);
	expect_end(fd, "start \\\"x\\\": no such file");
	g.shim.fails = NULL;
	wait_exec_streams(0);

	/* The client goes: the process is killed. */
	g.shim.exec_runs = true;
	run_exec(&q, &fd, 0, NULL);
	wait_exec_streams(1);
	(void)close(fd);
	wait_exec_streams(0);
	g.shim.exec_runs = false;

	g.d.exec_streams = EXEC_STREAMS_MAX;
	run_exec(&q, &fd, 0, NULL);
	expect_end(fd, "there are 512 commands with clients already");
	g.d.exec_streams = 0;

	/* Nobody comes for the first two: they count until their time is over. */
	memset(large, 'x', sizeof(large) - 64);
	q.cmd = cmd;
	run_exec(&q, NULL, 0, NULL);
	run_exec(&q, NULL, 0, NULL);
	run_exec(&q, NULL, -ENOBUFS, "commands that wait for their clients hold 16383 KiB");
	remove_pod(pod);
}

/* A program that we start and that fails has the last word. */
static void words_of_the_shim(void **state)
{
	static const char says[] =
		"containerd-shim-husk-v2: start x: socket /y: File exists\nand more\n";
	cleanup_free char *path = str_fmt("%s/says", g.dir), *silent = NULL;
	char pod[65];

	assert_int_equal(write_file_atomic(path, says, strlen(says), 0600, false, NULL), 0);
	run_pod("words", pod, -EIO, "pod words: start x: socket /y: File exists and more");
	assert_int_equal(write_file_atomic(path, "", 0, 0600, false, NULL), 0);
	silent = str_fmt("pod words: %s start failed with status 1 and said nothing",
			 g.shim.program);
	run_pod("words", pod, -EIO, silent);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life),
		cmocka_unit_test(pod_errors),
		cmocka_unit_test(container_errors),
		cmocka_unit_test(comes_back),
		cmocka_unit_test(exec_output),
		cmocka_unit_test(exec_errors),
		cmocka_unit_test(exec_streams),
		cmocka_unit_test(words_of_the_shim),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
