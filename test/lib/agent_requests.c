#include "test/lib/agent_requests.h"

#include <signal.h>
#include <stdlib.h>

#include "base/util.h"
#include "test/lib/unit.h"

static int next_scratch;
static int next_container;

static char *options_proc[] = { (char *)"nosuid", (char *)"noexec", (char *)"nodev" };
static char *options_dev[] = { (char *)"nosuid", (char *)"strictatime", (char *)"mode=755",
			       (char *)"size=65536k" };
static char *options_pts[] = { (char *)"nosuid",	(char *)"noexec",    (char *)"newinstance",
			       (char *)"ptmxmode=0666", (char *)"mode=0620", (char *)"gid=5" };
static char *options_ro[] = { (char *)"nosuid", (char *)"noexec", (char *)"nodev", (char *)"ro" };
static char *options_bind[] = { (char *)"rbind", (char *)"rprivate", (char *)"rw" };

void request_mount(struct setup *s, const char *type, const char *dest, const char *source,
		   char **options, size_t n)
{
	Agent__Mount *m = &s->mount[s->req.n_mounts];

	agent__mount__init(m);
	m->type = (char *)type;
	m->destination = (char *)dest;
	m->source = (char *)source;
	m->options = options;
	m->n_options = n;
	s->mounts[s->req.n_mounts++] = m;
}

void request_disk(Agent__Disk *d, uint64_t first, bool readonly)
{
	agent__disk__init(d);
	d->first_sector = first;
	d->sectors = DISK_SECTORS;
	d->readonly = readonly;
	d->fstype = (char *)"ext4";
}

static void process_of(Agent__Process *p, Agent__User *u, Agent__Stdio *io,
		       Agent__Capabilities *caps, char **args, size_t n)
{
	agent__process__init(p);
	agent__user__init(u);
	agent__stdio__init(io);
	agent__capabilities__init(caps);
	caps->bounding = caps->effective = caps->permitted = DEFAULT_CAPS;
	p->user = u;
	p->stdio = io;
	p->capabilities = caps;
	p->args = args;
	p->n_args = n;
}

void request_container(struct setup *s, const char *script)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->id, sizeof(s->id), "c%d", next_container++);
	agent__create_container_request__init(&s->req);
	agent__rootfs__init(&s->rootfs);
	request_disk(&s->base, DISK_BASE, true);
	request_disk(&s->top, DISK_TOP, true);
	request_disk(&s->scratch, DISK_SCRATCH(next_scratch), false);
	next_scratch = (next_scratch + 1) % (SCRATCHES - SCRATCHES_KEPT);
	s->lower[0] = &s->base;
	s->lower[1] = &s->top;
	s->rootfs.lower = s->lower;
	s->rootfs.n_lower = 2;
	s->rootfs.upper = &s->scratch;
	s->args[0] = (char *)"sh";
	s->args[1] = (char *)"-c";
	s->args[2] = (char *)script;
	process_of(&s->process, &s->user, &s->stdio, &s->caps, s->args, 3);
	s->req.id = s->id;
	s->req.rootfs = &s->rootfs;
	s->req.process = &s->process;
	s->req.mounts = s->mounts;
	request_mount(s, "proc", "/proc", "proc", options_proc, 3);
	request_mount(s, "tmpfs", "/dev", "tmpfs", options_dev, 4);
	request_mount(s, "devpts", "/dev/pts", "devpts", options_pts, 6);
	request_mount(s, "mqueue", "/dev/mqueue", "mqueue", options_proc, 3);
	request_mount(s, "sysfs", "/sys", "sysfs", options_ro, 4);
	request_mount(s, "cgroup2", "/sys/fs/cgroup", "cgroup", options_ro, 4);
	request_mount(s, "bind", "/dev/shm", "sandbox:shm", options_bind, 3);
	request_mount(s, "bind", "/etc/hosts", "sandbox:hosts", options_bind, 3);
	s->masked[0] = (char *)"/proc/kcore";
	s->masked[1] = (char *)"/sys/firmware";
	s->masked[2] = (char *)"/proc/nonexistent";
	s->readonly[0] = (char *)"/proc/sys";
	s->readonly[1] = (char *)"/proc/bus";
	s->req.masked_paths = s->masked;
	s->req.n_masked_paths = 3;
	s->req.readonly_paths = s->readonly;
	s->req.n_readonly_paths = 2;
}

void only_in_vm(const char *why)
{
	if (drv.in_vm)
		return;
	print_message("skipped: only in a VM, as %s\n", why);
	skip();
}

void do_create(struct setup *s)
{
	if (drive_code(&drv, "CreateContainer", &s->req) < 0)
		fail_msg("create: %s", err_text(&drv.err));
}

Agent__StartContainerResponse *do_start(const char *id)
{
	Agent__StartContainerRequest req = AGENT__START_CONTAINER_REQUEST__INIT;
	ProtobufCMessage *m;

	req.id = (char *)id;
	m = drive(&drv, "StartContainer", &req);
	if (!m)
		fail_msg("start: %s", err_text(&drv.err));
	return (void *)m;
}

void start_free(Agent__StartContainerResponse *r)
{
	agent__start_container_response__free_unpacked(r, NULL);
}

void do_start_ok(const char *id)
{
	Agent__StartContainerResponse *r = do_start(id);

	if (r->failure)
		fail_msg("start: %s: %d: %s", r->failure->stage, r->failure->error,
			 r->failure->message);
	assert_true(r->pid > 1);
	start_free(r);
}

void do_remove(const char *id)
{
	Agent__RemoveContainerRequest req = AGENT__REMOVE_CONTAINER_REQUEST__INIT;

	req.id = (char *)id;
	if (drive_code(&drv, "RemoveContainer", &req) < 0)
		fail_msg("remove: %s", err_text(&drv.err));
}

size_t count_pids(const char *id)
{
	Agent__ListProcessesRequest req = AGENT__LIST_PROCESSES_REQUEST__INIT;
	Agent__ListProcessesResponse *l;
	size_t n;

	req.id = (char *)id;
	l = (void *)drive(&drv, "ListProcesses", &req);
	assert_non_null(l);
	n = l->n_pids;
	agent__list_processes_response__free_unpacked(l, NULL);
	return n;
}

void assert_pings(uint64_t max_ms)
{
	Agent__PingRequest req = AGENT__PING_REQUEST__INIT;
	uint64_t begin = now_mono_ns();

	assert_int_equal(drive_code(&drv, "Ping", &req), 0);
	assert_true(now_mono_ns() - begin < max_ms * NS_PER_MS);
}

int do_kill(const char *id, const char *exec_id, int sig, bool all)
{
	Agent__SignalProcessRequest req = AGENT__SIGNAL_PROCESS_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.signal = (uint32_t)sig;
	req.all = all;
	return drive_code(&drv, "SignalProcess", &req);
}

char *run_to_end(struct setup *s, unsigned *ret_status)
{
	uint64_t id = drv.next_stream++;
	int fd = drive_stream(&drv, id);
	const struct seen_event *ev;
	char *out;

	s->stdio.stdout_stream = id;
	do_create(s);
	do_start_ok(s->id);
	out = drive_read_all(fd, NULL);
	ev = drive_exit(&drv, s->id, "");
	if (ret_status)
		*ret_status = ev->status;
	do_remove(s->id);
	return out;
}

char *run_script(const char *script, unsigned *ret_status)
{
	struct setup s;

	request_container(&s, script);
	return run_to_end(&s, ret_status);
}

void start_idle(struct setup *s)
{
	request_container(s, "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done");
	do_create(s);
	do_start_ok(s->id);
}

void stop_idle(struct setup *s)
{
	assert_int_equal(do_kill(s->id, "", SIGKILL, false), 0);
	assert_int_equal(drive_exit(&drv, s->id, "")->status, 128 + SIGKILL);
	do_remove(s->id);
}

void request_exec(struct exec *e, const char *id, const char *exec_id, const char *script)
{
	memset(e, 0, sizeof(*e));
	agent__exec_process_request__init(&e->req);
	e->args[0] = (char *)"sh";
	e->args[1] = (char *)"-c";
	e->args[2] = (char *)script;
	process_of(&e->process, &e->user, &e->stdio, &e->caps, e->args, 3);
	e->req.id = (char *)id;
	e->req.exec_id = (char *)exec_id;
	e->req.process = &e->process;
}

void do_exec_ok(struct exec *e)
{
	Agent__StartContainerResponse *r = (void *)drive(&drv, "ExecProcess", &e->req);

	if (!r)
		fail_msg("exec: %s", err_text(&drv.err));
	if (r->failure)
		fail_msg("exec: %s: %s", r->failure->stage, r->failure->message);
	start_free(r);
}

char *exec_script(const char *id, const char *exec_id, const char *script)
{
	struct exec e;
	int out;

	request_exec(&e, id, exec_id, script);
	e.stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, e.stdio.stdout_stream);
	do_exec_ok(&e);
	return drive_read_all(out, NULL);
}
