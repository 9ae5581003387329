#include "test/lib/shim/shim_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spawn.h"
#include "base/util.h"

#define CALL_TIMEOUT_MS 120000

void fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

static void *must(void *p)
{
	if (!p)
		fatal("out of memory");
	return p;
}

char *test_dir(const char *name)
{
	char *dir = must(str_fmt("/tmp/husk-test-%s.%d", name, (int)getpid()));
	struct err e = { 0 };

	if (remove_tree(dir, &e) < 0 || mkdir_p(dir, 0700, &e) < 0)
		fatal("%s: %s", dir, err_text(&e));
	return dir;
}

char *read_all(const char *path)
{
	char *text;

	if (read_file(path, 64 * MIB, &text, NULL, NULL) < 0)
		return must(strdup(""));
	return text;
}

/* ---- the pod ---- */

static void write_options(int fd, const Shim__Options *opts)
{
	Wkt__Any any = WKT__ANY__INIT;
	uint8_t inner[4096], outer[5000];

	any.type_url = (char *)"husk.shim.v1.Options";
	any.value.len = shim__options__pack(opts, inner);
	any.value.data = inner;
	check(write_all(fd, outer, wkt__any__pack(&any, outer)) == 0);
}

void pod_start(struct pod *p, const char *shim, const char *dir, const char *id,
	       const Shim__Options *opts)
{
	const char *argv[] = { shim, "-namespace", "husk", "-id",   id,	 "-address",
			       NULL, "-bundle",	   NULL,   "start", NULL };
	int in[2], out[2], pidfd, status;
	struct spawn s = spawn_of(shim, (char *const *)argv, OOM_SCORE_KEEP);
	struct err e = { 0 };
	char *text, *at;
	pid_t pid;

	*p = (struct pod){ .dir = must(strdup(dir)), .id = must(strdup(id)) };
	p->bundle = must(str_fmt("%s/pods/%s", dir, id));
	check(mkdir_p(p->bundle, 0700, &e) == 0);
	argv[6] = must(str_fmt("%s/husk.sock", dir));
	argv[8] = p->bundle;
	check(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	write_options(in[1], opts);
	(void)close(in[1]);
	s.fds[0] = in[0];
	s.fds[1] = out[1];
	s.fds[2] = STDERR_FILENO;
	s.n_fds = 3;
	if (spawn_run(&s, &pid, &pidfd, &e) < 0)
		fatal("%s", err_text(&e));
	(void)close(in[0]);
	(void)close(out[1]);
	(void)close(pidfd);
	/* Ends only when nobody holds the pipe any more: the daemon must not. */
	check(read_fd(out[0], 4096, &text, NULL) == 0);
	(void)close(out[0]);
	check(waitpid(pid, &status, 0) == pid && status == 0);
	at = strstr(text, "unix://");
	check(at && strchr(at, '"'));
	*strchr(at, '"') = 0;
	p->address = must(strdup(at));
	free(text);
	free((char *)argv[6]);
	check(loop_new(&p->loop, &e) == 0);
	pod_connect(p);
}

void pod_connect(struct pod *p)
{
	struct err e = { 0 };
	int fd;

	if (unix_connect(p->address, &fd, &e) < 0 ||
	    ttrpc_client_new(p->loop, fd, NULL, NULL, &p->client, &e) < 0)
		fatal("%s", err_text(&e));
	check(ttrpc_client_set_metadata(p->client, "containerd-namespace-ttrpc", "husk") == 0);
}

void pod_disconnect(struct pod *p)
{
	ttrpc_client_free(p->client);
	p->client = NULL;
}

void pod_fini(struct pod *p)
{
	pod_disconnect(p);
	loop_free(p->loop);
	free(p->dir);
	free(p->id);
	free(p->bundle);
	free(p->address);
	*p = (struct pod){ 0 };
}

void pod_read_pids(struct pod *p)
{
	char *path = must(str_fmt("%s/husk.pids", p->bundle)), *text = read_all(path), *line, *save;
	char name[16];
	int pid;

	p->shim = p->vmm = p->qemu = 0;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "%15s %d", name, &pid) != 2)
			continue;
		if (str_eq(name, "shim"))
			p->shim = pid;
		else if (str_eq(name, "vmm"))
			p->vmm = pid;
		else
			p->qemu = pid;
	}
	free(text);
	free(path);
}

bool process_gone(pid_t pid, int timeout_ms)
{
	char path[64], *text;
	bool gone;

	if (pid <= 0)
		return true;
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (int i = 0; i <= timeout_ms / 10; i++) {
		text = read_all(path);
		gone = !*text || strstr(text, ") Z ");
		free(text);
		if (gone)
			return true;
		(void)usleep(10000);
	}
	return false;
}

void run_for(struct pod *p, int ms)
{
	uint64_t end = now_mono_ns() + (uint64_t)ms * NS_PER_MS, now;

	while ((now = now_mono_ns()) < end)
		check(loop_once(p->loop, (int)((end - now) / NS_PER_MS) + 1) >= 0);
}

/* ---- calls ---- */

void answer_clear(struct answer *a)
{
	if (a->resp)
		protobuf_c_message_free_unpacked(a->resp, NULL);
	if (a->start_error)
		shim__start_error__free_unpacked(a->start_error, NULL);
	*a = (struct answer){ 0 };
}

static void on_done(const struct ttrpc_result *res, void *arg)
{
	struct answer *a = arg;
	uint8_t *packed;
	size_t n;

	a->done = true;
	a->code = res->code;
	a->status = res->status;
	(void)snprintf(a->msg, sizeof(a->msg), "%s", res->err ? err_text(res->err) : "");
	if (res->detail_type && str_eq(res->detail_type, "husk.shim.v1.StartError"))
		a->start_error = shim__start_error__unpack(NULL, res->detail_len, res->detail);
	if (!res->resp)
		return;
	n = protobuf_c_message_get_packed_size(res->resp);
	packed = must(malloc(n + 1));
	(void)protobuf_c_message_pack(res->resp, packed);
	a->resp = must(protobuf_c_message_unpack(res->resp->descriptor, NULL, n, packed));
	free(packed);
}

void call_start(struct pod *p, const ProtobufCServiceDescriptor *svc, const char *method,
		const ProtobufCMessage *req, struct answer *a)
{
	answer_clear(a);
	check(ttrpc_client_call(p->client, svc, method, req, CALL_TIMEOUT_MS, on_done, a) == 0);
}

bool answer_wait(struct pod *p, struct answer *a, int timeout_ms)
{
	uint64_t end = now_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;

	while (!a->done && now_mono_ns() < end)
		check(loop_once(p->loop, 50) >= 0);
	return a->done;
}

void call(struct pod *p, const ProtobufCServiceDescriptor *svc, const char *method,
	  const ProtobufCMessage *req, struct answer *a)
{
	call_start(p, svc, method, req, a);
	if (!answer_wait(p, a, CALL_TIMEOUT_MS + 5000))
		fatal("%s: no answer", method);
}

/* For requests that begin with the id of the sandbox, as all but CreateSandbox do. */
int sandbox_call(struct pod *p, const char *method, struct answer *a)
{
	const ProtobufCServiceDescriptor *svc = &sandbox__sandbox__descriptor;
	const ProtobufCMethodDescriptor *m =
		protobuf_c_service_descriptor_get_method_by_name(svc, method);
	Sandbox__StartSandboxRequest *req = must(calloc(1, m->input->sizeof_message));
	struct answer own = { 0 };
	int code;

	protobuf_c_message_init(m->input, req);
	req->sandbox_id = p->id;
	call(p, svc, method, &req->base, a ? a : &own);
	free(req);
	code = a ? a->code : own.code;
	answer_clear(&own);
	return code;
}

int create_sandbox(struct pod *p, const char *hostname)
{
	return create_sandbox_in(p, hostname, "");
}

int create_sandbox_in(struct pod *p, const char *hostname, const char *netns)
{
	Sandbox__CreateSandboxRequest req = SANDBOX__CREATE_SANDBOX_REQUEST__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	struct answer a = { 0 };
	uint8_t bytes[100];
	int code;

	/* PodSandboxConfig.hostname = 2 */
	bytes[0] = 2 << 3 | 2;
	bytes[1] = (uint8_t)strlen(hostname);
	memcpy(bytes + 2, hostname, bytes[1]);
	any.type_url = (char *)"runtime.v1.PodSandboxConfig";
	any.value.data = bytes;
	any.value.len = 2u + bytes[1];
	req.sandbox_id = p->id;
	req.options = &any;
	req.netns_path = (char *)netns;
	call(p, &sandbox__sandbox__descriptor, "CreateSandbox", &req.base, &a);
	code = a.code;
	answer_clear(&a);
	return code;
}

static void task(struct pod *p, const char *method, const ProtobufCMessage *req, struct answer *a)
{
	call(p, &task_v2__task__descriptor, method, req, a);
}

/* An answer that nobody looks at but for its code. */
static int task_code(struct pod *p, const char *method, const ProtobufCMessage *req)
{
	struct answer a = { 0 };
	int code;

	task(p, method, req, &a);
	code = a.code;
	answer_clear(&a);
	return code;
}

int task_start(struct pod *p, const char *id, const char *exec_id, struct answer *a)
{
	TaskV2__StartRequest req = TASK_V2__START_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	if (!a)
		return task_code(p, "Start", &req.base);
	task(p, "Start", &req.base, a);
	return a->code;
}

int task_kill(struct pod *p, const char *id, const char *exec_id, uint32_t sig)
{
	TaskV2__KillRequest req = TASK_V2__KILL_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.signal = sig;
	return task_code(p, "Kill", &req.base);
}

int task_delete(struct pod *p, const char *id, const char *exec_id)
{
	TaskV2__DeleteRequest req = TASK_V2__DELETE_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	return task_code(p, "Delete", &req.base);
}

void task_wait_start(struct pod *p, const char *id, const char *exec_id, struct answer *a)
{
	TaskV2__WaitRequest req = TASK_V2__WAIT_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	call_start(p, &task_v2__task__descriptor, "Wait", &req.base, a);
}

uint32_t task_wait(struct pod *p, const char *id, const char *exec_id)
{
	struct answer a = { 0 };
	uint32_t status;

	task_wait_start(p, id, exec_id, &a);
	check(answer_wait(p, &a, CALL_TIMEOUT_MS));
	if (a.code < 0)
		fatal("Wait %s %s: %s", id, exec_id, a.msg);
	status = ((TaskV2__WaitResponse *)a.resp)->exit_status;
	answer_clear(&a);
	return status;
}

int task_state(struct pod *p, const char *id, const char *exec_id)
{
	TaskV2__StateRequest req = TASK_V2__STATE_REQUEST__INIT;
	struct answer a = { 0 };
	int r;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	task(p, "State", &req.base, &a);
	r = a.code < 0 ? a.code : (int)((TaskV2__StateResponse *)a.resp)->status;
	answer_clear(&a);
	return r;
}

int task_exec(struct pod *p, const char *id, const char *exec_id, bool tty, const char *in,
	      const char *out, const char *err, const char *args_json)
{
	TaskV2__ExecProcessRequest req = TASK_V2__EXEC_PROCESS_REQUEST__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	char *spec =
		must(str_fmt("{\"args\":%s,\"env\":[\"PATH=/bin\"],\"cwd\":\"/\"}", args_json));
	int r;

	any.type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Process";
	any.value.data = (uint8_t *)spec;
	any.value.len = strlen(spec);
	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.terminal = tty;
	req.stdin = (char *)in;
	req.stdout = (char *)out;
	req.stderr = (char *)err;
	req.spec = &any;
	r = task_code(p, "Exec", &req.base);
	free(spec);
	return r;
}

int task_close_io(struct pod *p, const char *id, const char *exec_id)
{
	TaskV2__CloseIORequest req = TASK_V2__CLOSE_IOREQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.stdin = true;
	return task_code(p, "CloseIO", &req.base);
}

int task_resize(struct pod *p, const char *id, const char *exec_id, uint32_t w, uint32_t h)
{
	TaskV2__ResizePtyRequest req = TASK_V2__RESIZE_PTY_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.width = w;
	req.height = h;
	return task_code(p, "ResizePty", &req.base);
}

/* ---- containers ---- */

static const char config_format[] =
	"{\"ociVersion\":\"1.1.0\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"args\":%s,"
	"\"env\":[\"PATH=/bin\"],\"cwd\":\"/\",\"capabilities\":{\"bounding\":[\"CAP_KILL\"],"
	"\"effective\":[\"CAP_KILL\"],\"permitted\":[\"CAP_KILL\"]},\"noNewPrivileges\":true},"
	"\"root\":{\"path\":\"rootfs\"},\"mounts\":["
	"{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
	"{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\","
	"\"strictatime\",\"mode=755\",\"size=65536k\"]},"
	"{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\",\"options\":["
	"\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]},"
	"{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\",\"options\":[\"nosuid\","
	"\"noexec\",\"nodev\",\"ro\"]}],"
	"\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},"
	"{\"type\":\"mount\"},{\"type\":\"network\"}],\"maskedPaths\":[\"/proc/kcore\"],"
	"\"readonlyPaths\":[\"/proc/sys\"],\"resources\":{\"pids\":{\"limit\":100},"
	"\"memory\":{\"limit\":67108864,\"swap\":67108864},\"cpu\":{\"shares\":512}}}}";

char *make_bundle(struct pod *p, const char *id, const char *args, const char *config)
{
	char *dir = must(str_fmt("%s/containers/%s", p->dir, id));
	char *path = must(str_fmt("%s/config.json", dir));
	char *text = args ? must(str_fmt(config_format, args)) : must(strdup(config));
	struct err e = { 0 };

	if (mkdir_p(dir, 0700, &e) < 0 ||
	    write_file_atomic(path, text, strlen(text), 0600, false, &e) < 0)
		fatal("%s", err_text(&e));
	free(text);
	free(path);
	return dir;
}

int task_create(struct pod *p, const char *id, const char *bundle, const char *out, const char *err,
		const char *const *layers, const char *scratch, struct answer *a)
{
	TaskV2__CreateTaskRequest req = TASK_V2__CREATE_TASK_REQUEST__INIT;
	static const char *const ro[] = { "ro", "loop" }, *const rw[] = { "rw", "loop" };
	Types__Mount m[70], *list[70];
	struct answer own = { 0 };
	size_t n = 0;
	int code;

	for (; layers && *layers; layers++, n++) {
		types__mount__init(&m[n]);
		m[n].type = (char *)"ext4";
		m[n].source = (char *)*layers;
		m[n].options = (char **)ro;
		m[n].n_options = 2;
	}
	if (scratch) {
		types__mount__init(&m[n]);
		m[n].type = (char *)"ext4";
		m[n].source = (char *)scratch;
		m[n].options = (char **)rw;
		m[n++].n_options = 2;
	}
	types__mount__init(&m[n]);
	m[n].type = m[n].source = (char *)"overlay";
	n++;
	for (size_t i = 0; i < n; i++)
		list[i] = &m[i];
	req.id = (char *)id;
	req.bundle = (char *)bundle;
	req.stdout = (char *)out;
	req.stderr = (char *)err;
	req.rootfs = list;
	req.n_rootfs = n;
	task(p, "Create", &req.base, a ? a : &own);
	code = a ? a->code : own.code;
	answer_clear(&own);
	return code;
}

/* ---- FIFOs ---- */

static void on_fifo(struct ev_io *io, uint32_t events)
{
	struct sink *s = io->arg;
	char buf[65536];
	ssize_t n = read(s->fd, buf, sizeof(buf));

	if (n < 0)
		return;
	if (n == 0) {
		ev_io_del(io);
		s->eof = true;
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		s->sum += (uint8_t)buf[i];
	if (s->n < sizeof(s->text) - 1) {
		size_t room = sizeof(s->text) - 1 - s->n;

		memcpy(s->text + s->n, buf, MIN_OF(room, (size_t)n));
	}
	s->n += (size_t)n;
}

void sink_open(struct pod *p, struct sink *s, const char *path)
{
	*s = (struct sink){ .path = must(strdup(path)) };
	(void)unlink(path);
	check(mkfifo(path, 0600) == 0);
	s->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	check(s->fd >= 0);
	check(ev_io_add(p->loop, &s->io, s->fd, EPOLLIN, on_fifo, s) == 0);
}

/* Before the shim opens the FIFO it has no writer, which is no end of file for epoll. */
bool sink_wait_eof(struct pod *p, struct sink *s, int timeout_ms)
{
	uint64_t end = now_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;

	while (!s->eof && now_mono_ns() < end)
		check(loop_once(p->loop, 50) >= 0);
	return s->eof;
}

void sink_close(struct sink *s)
{
	ev_io_del(&s->io);
	if (s->path) {
		(void)close(s->fd);
		(void)unlink(s->path);
		free(s->path);
	}
	*s = (struct sink){ 0 };
}
