/*
 * The shim with a real monitor, kernel and agent, driven as huskd drives it:
 *
 *	shim_drive [--backend NAME] [--bin DIR] [CASE]...
 *
 * DIR holds containerd-shim-husk-v2 and husk-vmm, and ../share/husk/{vmlinux,initramfs.cpio} beside
 *it (default: the directory above this program's, /bin). Without CASE all are run. Needs root,
 * busybox-static and e2fsprogs. The last line is one JSON object with times and memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/pod_net.h"
#include "test/lib/shim/shim_client.h"
#include "test/unit/agent/hung_disk.h"

static const char *backend = "auto";
static char *bin, *shim_path, *dir, *layer;
static const char *netns = ""; /* of the next pod */
static double ms_sandbox, ms_net, ms_create, ms_start, ms_exec, ms_stop;
static long shim_pss, vmm_pss;

static double now_ms(void)
{
	return (double)now_mono_ns() / (double)NS_PER_MS;
}

static void sh(const char *fmt, ...) printf_like(1, 2);
static void sh(const char *fmt, ...)
{
	char cmd[4096];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fatal("failed: %s", cmd);
}

static void make_layer(void)
{
	layer = str_fmt("%s/layer.ext4", dir);
	sh("set -e; r=%s/root; mkdir -p $r/bin $r/etc $r/proc $r/sys $r/dev $r/tmp; "
	   "cp $(command -v busybox) $r/bin/; for a in sh cat echo sleep true dd id stty "
	   "hostname sha256sum head yes wc kill; do ln -s busybox $r/bin/$a; done; "
	   "echo root:x:0:0:root:/root:/bin/sh > $r/etc/passwd; echo root:x:0: > $r/etc/group; "
	   "echo text > $r/etc/text; truncate -s 16M %s; "
	   "mke2fs -q -t ext4 -O ^has_journal -d $r %s",
	   dir, layer, layer);
}

static char *make_scratch(const char *id)
{
	char *path = str_fmt("%s/%s.scratch", dir, id);

	sh("truncate -s 64M %s && mke2fs -q -t ext4 -O ^has_journal %s", path, path);
	return path;
}

static long pss_kib(pid_t pid)
{
	char path[64], *text, *at;
	long n;

	(void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	text = read_all(path);
	at = strstr(text, "\nPss:");
	n = at ? strtol(at + 5, NULL, 10) : -1;
	free(text);
	return n;
}

static void up(struct pod *p, const char *id)
{
	Shim__Options o = SHIM__OPTIONS__INIT;
	char *log = str_fmt("%s/shim.log", dir);
	struct answer a = { 0 };
	double t = now_ms();

	o.backend = (char *)backend;
	o.log_file = log;
	o.vmm_path = str_fmt("%s/husk-vmm", bin);
	pod_start(p, shim_path, dir, id, &o);
	check(create_sandbox_in(p, "web-0", netns) == 0);
	if (sandbox_call(p, "StartSandbox", &a) < 0)
		fatal("StartSandbox: %s", a.msg);
	answer_clear(&a);
	if (ms_sandbox == 0)
		ms_sandbox = now_ms() - t;
	pod_read_pids(p);
	check(p->shim > 0 && p->vmm > 0);
	free(o.vmm_path);
	free(log);
}

static void down(struct pod *p)
{
	double t = now_ms();

	check(sandbox_call(p, "StopSandbox", NULL) == 0);
	if (ms_stop == 0)
		ms_stop = now_ms() - t;
	check(sandbox_call(p, "StopSandbox", NULL) == 0);
	check(process_gone(p->vmm, 1000) && process_gone(p->qemu, 1000));
	check(sandbox_call(p, "ShutdownSandbox", NULL) == 0);
	check(process_gone(p->shim, 2000));
	check(access(p->address + strlen("unix://"), F_OK) < 0);
	pod_fini(p);
}

static void create(struct pod *p, const char *id, const char *args, const char *log)
{
	char *bundle = make_bundle(p, id, args, NULL), *scratch = make_scratch(id);
	char *uri = log ? str_fmt("cri-log://%s", log) : strdup("");
	const char *layers[] = { layer, NULL };
	struct answer a = { 0 };

	if (task_create(p, id, bundle, uri, uri, layers, scratch, &a) < 0)
		fatal("Create %s: %s", id, a.msg);
	answer_clear(&a);
	free(bundle);
	free(scratch);
	free(uri);
}

static bool has(const char *path, const char *text)
{
	char *all = read_all(path);
	bool r = strstr(all, text) != NULL;

	if (!r)
		fprintf(stderr, "no \"%s\" in:\n%s\n", text, all);
	free(all);
	return r;
}

/* ---- cases ---- */

static void case_life(void)
{
	char *log = str_fmt("%s/life.log", dir);
	struct pod p;
	double t;

	up(&p, "life");
	t = now_ms();
	create(&p, "c1",
	       "[\"sh\",\"-c\",\"echo hello; echo oops >&2; hostname; printf open; exit 3\"]", log);
	ms_create = now_ms() - t;
	check(task_state(&p, "c1", "") == TASK__STATUS__CREATED);
	t = now_ms();
	check(task_start(&p, "c1", "", NULL) == 0);
	ms_start = now_ms() - t;
	check(task_wait(&p, "c1", "") == 3);
	check(task_wait(&p, "c1", "") == 3); /* sticky */
	check(task_state(&p, "c1", "") == TASK__STATUS__STOPPED);
	/* Everything is in the log before the exit is told. */
	check(has(log, "stdout F hello\n") && has(log, "stderr F oops\n"));
	check(has(log, "stdout F web-0\n") && has(log, "stdout P open\n"));
	check(task_kill(&p, "c1", "", 9) == -ENOENT);
	check(task_start(&p, "c1", "", NULL) == -EBUSY);
	check(task_delete(&p, "c1", "") == 0);
	check(task_delete(&p, "c1", "") == -ENOENT);
	check(task_state(&p, "c1", "") == -ENOENT);
	run_for(&p, 300);
	shim_pss = pss_kib(p.shim);
	vmm_pss = pss_kib(p.vmm);
	down(&p);
	free(log);
}

static int exec_run(struct pod *p, const char *id, const char *args, struct sink *out,
		    struct sink *err, struct answer *a)
{
	char *o = str_fmt("%s/x.out", dir), *e = str_fmt("%s/x.err", dir);
	int r;

	sink_open(p, out, o);
	sink_open(p, err, e);
	check(task_exec(p, "c1", id, false, "", o, e, args) == 0);
	r = task_start(p, "c1", id, a);
	free(o);
	free(e);
	return r;
}

static void exec_done(struct pod *p, const char *id, struct sink *out, struct sink *err)
{
	check(sink_wait_eof(p, out, 20000) && sink_wait_eof(p, err, 20000));
	sink_close(out);
	sink_close(err);
	check(task_delete(p, "c1", id) == 0);
}

static void exec_fails(struct pod *p, const char *args, uint32_t exit_code, enum rpc_code status)
{
	struct sink out, err;
	struct answer a = { 0 };

	check(exec_run(p, "bad", args, &out, &err, &a) < 0);
	check(a.status == status && a.start_error && a.start_error->exit_code == exit_code);
	check(task_wait(p, "c1", "bad") == exit_code);
	exec_done(p, "bad", &out, &err);
	answer_clear(&a);
}

static void exec_bulk(struct pod *p)
{
	enum { MEGS = 64 };
	struct sink out, err;

	/* A reader that sleeps first: the writer waits, nothing is lost. */
	check(exec_run(p, "bulk", "[\"dd\",\"if=/dev/zero\",\"bs=1M\",\"count=64\"]", &out, &err,
		       NULL) == 0);
	check(ev_io_set(&out.io, 0) == 0);
	run_for(p, 500);
	check(task_state(p, "c1", "bulk") == TASK__STATUS__RUNNING);
	check(ev_io_set(&out.io, EPOLLIN) == 0);
	check(task_wait(p, "c1", "bulk") == 0);
	check(sink_wait_eof(p, &out, 20000) && out.n == MEGS * MIB && out.sum == 0);
	exec_done(p, "bulk", &out, &err);
}

static void exec_stdin(struct pod *p)
{
	enum { BYTES = 3000000 };
	char *in = str_fmt("%s/x.in", dir), *o = str_fmt("%s/x.out", dir), block[1000];
	struct sink out;
	size_t sent = 0;
	int fd;

	(void)unlink(in);
	check(mkfifo(in, 0600) == 0);
	sink_open(p, &out, o);
	check(task_exec(p, "c1", "in", false, in, o, "", "[\"wc\",\"-c\"]") == 0);
	check(task_start(p, "c1", "in", NULL) == 0);
	fd = open(in, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	check(fd >= 0);
	memset(block, 'x', sizeof(block));
	while (sent < BYTES) {
		ssize_t n = write(fd, block, sizeof(block));

		check(n > 0 || errno == EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		if (n < 0)
			run_for(p, 5);
	}
	/* End of file needs both: the client's close and CloseIO. */
	(void)close(fd);
	run_for(p, 200);
	check(task_state(p, "c1", "in") == TASK__STATUS__RUNNING);
	check(task_close_io(p, "c1", "in") == 0);
	check(task_wait(p, "c1", "in") == 0);
	check(sink_wait_eof(p, &out, 5000) && strstr(out.text, "3000000"));
	sink_close(&out);
	check(task_delete(p, "c1", "in") == 0);
	free(in);
	free(o);
}

static void exec_tty(struct pod *p)
{
	char *o = str_fmt("%s/x.out", dir);
	struct sink out;

	sink_open(p, &out, o);
	check(task_exec(p, "c1", "tty", true, "", o, "",
			"[\"sh\",\"-c\",\"stty size; sleep 1; stty size; exit 4\"]") == 0);
	check(task_resize(p, "c1", "tty", 80, 25) == 0);
	check(task_start(p, "c1", "tty", NULL) == 0);
	run_for(p, 300);
	check(task_resize(p, "c1", "tty", 100, 40) == 0);
	check(task_wait(p, "c1", "tty") == 4);
	check(sink_wait_eof(p, &out, 5000));
	if (!strstr(out.text, "25 80") || !strstr(out.text, "40 100"))
		fatal("terminal: %s", out.text);
	sink_close(&out);
	check(task_delete(p, "c1", "tty") == 0);
	check(task_resize(p, "c1", "", 80, 25) == -EBUSY); /* no terminal */
	free(o);
}

static void case_exec(void)
{
	struct sink out, err;
	struct pod p;
	double t;

	up(&p, "exec");
	create(&p, "c1", "[\"sleep\",\"1000\"]", NULL);
	check(task_start(&p, "c1", "", NULL) == 0);
	t = now_ms();
	check(exec_run(&p, "e1", "[\"sh\",\"-c\",\"echo out; echo err >&2; exit 7\"]", &out, &err,
		       NULL) == 0);
	check(task_exec(&p, "c1", "e1", false, "", "", "", "[\"true\"]") == -EEXIST);
	check(task_wait(&p, "c1", "e1") == 7);
	ms_exec = now_ms() - t;
	check(str_eq(out.text, "out\n") && str_eq(err.text, "err\n"));
	exec_done(&p, "e1", &out, &err);
	for (int i = 0; i < 20; i++) {
		check(exec_run(&p, "e", "[\"echo\",\"again\"]", &out, &err, NULL) == 0);
		check(task_wait(&p, "c1", "e") == 0);
		check(sink_wait_eof(&p, &out, 5000) && str_eq(out.text, "again\n"));
		exec_done(&p, "e", &out, &err);
	}
	exec_fails(&p, "[\"nosuch\"]", 127, RPC_NOT_FOUND);
	exec_fails(&p, "[\"/etc/text\"]", 126, RPC_PERMISSION_DENIED);
	exec_bulk(&p);
	exec_stdin(&p);
	exec_tty(&p);
	/* The init's end takes the execs along; they are told first. */
	check(task_exec(&p, "c1", "last", false, "", "", "", "[\"sleep\",\"100\"]") == 0);
	check(task_start(&p, "c1", "last", NULL) == 0);
	check(task_delete(&p, "c1", "") == -EBUSY);
	check(task_kill(&p, "c1", "", 9) == 0);
	check(task_wait(&p, "c1", "") == 137);
	check(task_state(&p, "c1", "last") == TASK__STATUS__STOPPED);
	check(task_wait(&p, "c1", "last") == 137);
	check(task_delete(&p, "c1", "last") == 0 && task_delete(&p, "c1", "") == 0);
	down(&p);
}

/* Several containers on the same layer, again and again: windows come back. */
static void case_share(void)
{
	char *log = str_fmt("%s/share.log", dir);
	struct pod p;

	up(&p, "share");
	for (int i = 0; i < 4; i++) {
		create(&p, "a", "[\"sleep\",\"1000\"]", NULL);
		create(&p, "b", "[\"cat\",\"/etc/text\"]", log);
		check(task_start(&p, "a", "", NULL) == 0 && task_start(&p, "b", "", NULL) == 0);
		check(task_wait(&p, "b", "") == 0 && has(log, "stdout F text\n"));
		check(task_delete(&p, "b", "") == 0);
		check(task_kill(&p, "a", "", 9) == 0 && task_wait(&p, "a", "") == 137);
		check(task_delete(&p, "a", "") == 0);
		check(unlink(log) == 0);
	}
	/* Killed before the start, and deleted without one. */
	create(&p, "c", "[\"true\"]", NULL);
	check(task_kill(&p, "c", "", 9) == 0 && task_wait(&p, "c", "") == 137);
	check(task_delete(&p, "c", "") == 0);
	create(&p, "c", "[\"true\"]", NULL);
	check(task_delete(&p, "c", "") == 0);
	/* A start that fails is told with its exit code, and the container stays to be deleted. */
	create(&p, "d", "[\"nosuch\"]", NULL);
	check(task_start(&p, "d", "", NULL) == -ENOENT && task_wait(&p, "d", "") == 127);
	check(task_delete(&p, "d", "") == 0);
	down(&p);
	free(log);
}

static void case_log(void)
{
	Shim__ReopenLogRequest req = SHIM__REOPEN_LOG_REQUEST__INIT;
	char *log = str_fmt("%s/rotate.log", dir), *old = str_fmt("%s/rotate.log.1", dir);
	struct answer a = { 0 };
	struct pod p;

	up(&p, "log");
	create(&p, "c1", "[\"sh\",\"-c\",\"echo one; sleep 2; echo two\"]", log);
	check(task_start(&p, "c1", "", NULL) == 0);
	run_for(&p, 1000);
	check(rename(log, old) == 0);
	req.id = (char *)"c1";
	call(&p, &shim__shim__descriptor, "ReopenLog", &req.base, &a);
	check(a.code == 0 && access(log, F_OK) == 0);
	/* Whoever led the pod goes away and another one comes. */
	pod_disconnect(&p);
	pod_connect(&p);
	check(task_wait(&p, "c1", "") == 0);
	check(has(old, "one\n") && has(log, "two\n"));
	answer_clear(&a);
	down(&p);
	free(log);
	free(old);
}

static void case_errors(void)
{
	const char *layers[] = { layer, NULL }, *missing[] = { "/nonexistent/x.ext4", NULL };
	struct answer a = { 0 };
	char *b, *scratch = make_scratch("errors");
	struct pod p;

	up(&p, "errors");
	b = make_bundle(&p, "e1", NULL,
			"{\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"},"
			"\"linux\":{\"seccomp\":{\"defaultAction\":\"X\"}}}");
	check(task_create(&p, "e1", b, "", "", layers, scratch, &a) == -ENOSYS);
	check(strstr(a.msg, "linux.seccomp"));
	free(b);
	b = make_bundle(&p, "e1", "[\"true\"]", NULL);
	check(task_create(&p, "e1", b, "", "", missing, scratch, &a) == -ENOENT);
	check(strstr(a.msg, "/nonexistent/x.ext4"));
	check(task_create(&p, "e1", b, "/nonexistent/fifo", "", layers, scratch, &a) == -ENOENT);
	check(task_create(&p, "../x", b, "", "", layers, scratch, &a) == -EINVAL);
	check(task_create(&p, "e1", b, "", "", NULL, NULL, &a) == -ENOSYS);
	/* No file system on the disk: the guest says so, and everything is as before. */
	check(truncate(scratch, 0) == 0 && truncate(scratch, 1 << 20) == 0);
	check(task_create(&p, "e1", b, "", "", layers, scratch, &a) < 0);
	fprintf(stderr, "  no file system: %s\n", a.msg);
	free(scratch);
	create(&p, "e1", "[\"true\"]", NULL);
	scratch = make_scratch("errors");
	check(task_create(&p, "e1", b, "", "", layers, scratch, &a) == -EEXIST);
	check(task_start(&p, "e1", "", NULL) == 0 && task_wait(&p, "e1", "") == 0);
	check(task_start(&p, "unknown", "", NULL) == -ENOENT);
	answer_clear(&a);
	free(b);
	free(scratch);
	down(&p);
}

/* The host's disk hangs below a container that is just being made, for longer than the shim waits
 * for the agent and than the agent may be silent: its create fails, the pod and the containers
 * beside it live on. Gone with the disk's return, it can be made again. */
static void case_hung_disk(void)
{
	const char *layers[] = { layer, NULL };
	char *scratch, *hung, *b;
	struct answer a = { 0 };
	struct sink out, err;
	struct pod p;
	double t;

	if (hung_disk_make(dir) < 0) {
		fprintf(stderr, "  skipped: no loop device for a disk that hangs\n");
		return;
	}
	scratch = make_scratch("hung");
	hung = str_fmt("%s/hung/scratch", dir);
	sh("cp %s %s", scratch, hung);
	up(&p, "hung");
	create(&p, "c1", "[\"sleep\",\"1000\"]", NULL);
	check(task_start(&p, "c1", "", NULL) == 0);
	b = make_bundle(&p, "c2", "[\"true\"]", NULL);
	check(exec_run(&p, "e", "[\"echo\",\"there\"]", &out, &err, NULL) == 0);
	check(task_wait(&p, "c1", "e") == 0);
	exec_done(&p, "e", &out, &err);
	hung_disk_hang(true);
	t = now_ms();
	check(task_create(&p, "c2", b, "", "", layers, hung, &a) == -ETIMEDOUT);
	fprintf(stderr, "  after %.0f s: %s\n", (now_ms() - t) / 1000, a.msg);
	check(task_state(&p, "c2", "") == -ENOENT);
	run_for(&p, 5000);
	check(exec_run(&p, "e", "[\"echo\",\"there\"]", &out, &err, NULL) == 0);
	check(task_wait(&p, "c1", "e") == 0);
	check(sink_wait_eof(&p, &out, 5000) && str_eq(out.text, "there\n"));
	exec_done(&p, "e", &out, &err);
	hung_disk_hang(false);
	for (int i = 0; i < 100 && task_create(&p, "c2", b, "", "", layers, hung, &a) < 0; i++)
		run_for(&p, 100);
	if (a.code < 0)
		fatal("Create c2 again: %s", a.msg);
	check(task_start(&p, "c2", "", NULL) == 0 && task_wait(&p, "c2", "") == 0);
	check(task_state(&p, "c1", "") == TASK__STATUS__RUNNING);
	answer_clear(&a);
	down(&p);
	hung_disk_free();
	free(hung);
	free(scratch);
	free(b);
}

/* What of the pod is left after its VM was killed from outside. */
static void vm_killed(const char *id, bool kill_qemu)
{
	Shim__ExitInfoRequest req = SHIM__EXIT_INFO_REQUEST__INIT;
	struct answer w = { 0 }, a = { 0 };
	struct pod p;

	up(&p, id);
	create(&p, "c1", "[\"sleep\",\"1000\"]", NULL);
	create(&p, "c2", "[\"sleep\",\"1000\"]", NULL);
	check(task_start(&p, "c1", "", NULL) == 0);
	check(task_exec(&p, "c1", "x", false, "", "", "", "[\"sleep\",\"100\"]") == 0);
	check(task_start(&p, "c1", "x", NULL) == 0);
	task_wait_start(&p, "c1", "", &w);
	run_for(&p, 100);
	check(!w.done);
	/* With backend kvm the monitor is all there is. */
	check(kill(kill_qemu && p.qemu ? p.qemu : p.vmm, SIGKILL) == 0);
	check(answer_wait(&p, &w, 5000) && w.code == 0);
	check(((TaskV2__WaitResponse *)w.resp)->exit_status == 255);
	check(task_wait(&p, "c1", "x") == 255 && task_wait(&p, "c2", "") == 255);
	req.id = (char *)"c1";
	call(&p, &shim__shim__descriptor, "ExitInfo", &req.base, &a);
	check(a.code == 0);
	fprintf(stderr, "  why: %s\n", ((Shim__ExitInfoResponse *)a.resp)->sandbox_died);
	check(*((Shim__ExitInfoResponse *)a.resp)->sandbox_died);
	check(sandbox_call(&p, "SandboxStatus", &a) == 0);
	check(str_eq(((Sandbox__SandboxStatusResponse *)a.resp)->state, "SANDBOX_NOTREADY"));
	check(process_gone(p.vmm, 2000) && process_gone(p.qemu, 2000));
	check(task_start(&p, "c2", "", NULL) == -EBUSY);
	check(task_delete(&p, "c1", "") == 0 && task_delete(&p, "c2", "") == 0);
	answer_clear(&a);
	answer_clear(&w);
	down(&p);
}

static void case_vmm_killed(void)
{
	vm_killed("vmm-killed", false);
}

static void case_qemu_killed(void)
{
	vm_killed("qemu-killed", true);
}

static void case_shim_killed(void)
{
	char *cmd;
	struct pod p;

	up(&p, "shim-killed");
	create(&p, "c1", "[\"sleep\",\"1000\"]", NULL);
	check(task_start(&p, "c1", "", NULL) == 0);
	check(kill(p.shim, SIGTERM) == 0); /* ignored */
	run_for(&p, 100);
	check(task_state(&p, "c1", "") == TASK__STATUS__RUNNING);
	check(kill(p.shim, SIGKILL) == 0);
	check(process_gone(p.shim, 2000) && process_gone(p.vmm, 2000) &&
	      process_gone(p.qemu, 2000));
	check(access(p.address + strlen("unix://"), F_OK) == 0); /* stale */
	cmd = str_fmt("%s -namespace husk -id %s -address %s/husk.sock -bundle %s delete | wc -c",
		      shim_path, p.id, dir, p.bundle);
	sh("test $(%s) -gt 4", cmd);
	check(access(p.address + strlen("unix://"), F_OK) < 0);
	/* The mark, and with it no `start`; and the console, which may tell why. */
	sh("test \"$(cd %s; echo *)\" = \"console.log husk.lock\"", p.bundle);
	sh("! %s -namespace husk -id %s -address %s/husk.sock -bundle %s start </dev/null 2>&1 "
	   "| grep -v deleted",
	   shim_path, p.id, dir, p.bundle);
	free(cmd);
	pod_fini(&p);
}

/* The monitor cannot start: a clear error, and nothing is left. */
static void case_no_kernel(void)
{
	Shim__Options o = SHIM__OPTIONS__INIT;
	struct answer a = { 0 };
	struct pod p;

	o.backend = (char *)backend;
	o.kernel = (char *)"/nonexistent/vmlinux";
	o.log_file = (char *)"/dev/null";
	o.vmm_path = str_fmt("%s/husk-vmm", bin);
	pod_start(&p, shim_path, dir, "no-kernel", &o);
	check(create_sandbox(&p, "") == 0);
	check(sandbox_call(&p, "StartSandbox", &a) < 0);
	fprintf(stderr, "  no kernel: %s\n", a.msg);
	check(strstr(a.msg, "/nonexistent/vmlinux"));
	pod_read_pids(&p);
	check(p.vmm == 0);
	check(sandbox_call(&p, "ShutdownSandbox", NULL) == 0 && process_gone(p.shim, 2000));
	answer_clear(&a);
	free(o.vmm_path);
	pod_fini(&p);
}

/* What the container is told by `script`. */
static void tells(struct pod *p, const char *script, const char *const *texts)
{
	char *args = str_fmt("[\"sh\",\"-c\",\"%s\"]", script);
	struct sink out, err;

	check(exec_run(p, "net", args, &out, &err, NULL) == 0);
	check(task_wait(p, "c1", "net") == 0);
	check(sink_wait_eof(p, &out, 5000));
	for (; *texts; texts++)
		if (!strstr(out.text, *texts))
			fatal("no \"%s\" in:\n%s", *texts, out.text);
	exec_done(p, "net", &out, &err);
	free(args);
}

/* The guest has what the namespace has, and nobody asks whether the address is free (flags 02:
 * nodad; 40 and 42 would be tentative). */
static void net_mirrored(struct pod *p)
{
	static const char *const link[] = { "eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400",
					    "link/ether " POD_MAC,
					    POD4 "/24 brd 192.0.2.255",
					    POD6 "/64 scope global flags 02",
					    "fe80::858:c0ff:fe00:202/64 scope link flags 02",
					    "lo: <LOOPBACK,UP,LOWER_UP>",
					    NULL };
	static const char *const routes[] = { "default via " NODE4 " dev eth0",
					      "203.0.113.0/24 via 198.51.100.1 dev eth0  metric 77",
					      "192.0.2.0/24 dev eth0",
					      "blackhole 198.18.0.0/15",
					      "default via " NODE6 " dev eth0",
					      NULL };
	static const char *const neighbours[] = {
		"192.0.2.77       0x1         0x6         "
		"02:00:00:00:00:77",
		NULL
	};

	tells(p, "busybox ip addr", link);
	tells(p, "busybox ip route; busybox ip -6 route", routes);
	tells(p, "cat /proc/net/arp", neighbours);
}

/* Byte-exact both ways, by both families; the guest's interface is the only one of that address. */
static void net_carries(struct pod *p)
{
	enum { BYTES = 20000000 };
	pid_t server;

	check(node_ping(POD4) == 0 && node_ping(POD6) == 0);
	check(task_exec(p, "c1", "srv", false, "", "", "",
			"[\"busybox\",\"nc\",\"-ll\",\"-p\",\"8080\",\"-e\",\"cat\"]") == 0);
	check(task_start(p, "c1", "srv", NULL) == 0);
	run_for(p, 500);
	check(node_echo(POD4, 8080, BYTES) == 0);
	check(node_echo(POD6, 8080, BYTES) == 0);
	server = node_serve(9000, BYTES);
	tells(p, "head -c 20000000 /dev/zero | busybox nc " NODE4 " 9000",
	      (const char *[]){ NULL });
	check(node_served(server) == 0);
	server = node_serve(9000, BYTES);
	tells(p, "head -c 20000000 /dev/zero | busybox nc " NODE6 " 9000",
	      (const char *[]){ NULL });
	check(node_served(server) == 0);
}

static void net_refuses(const char *path, const char *text)
{
	Shim__Options o = SHIM__OPTIONS__INIT;
	struct answer a = { 0 };
	struct pod p;

	o.backend = (char *)backend;
	o.vmm_path = str_fmt("%s/husk-vmm", bin);
	pod_start(&p, shim_path, dir, "refused", &o);
	check(create_sandbox_in(&p, "", path) == 0);
	check(sandbox_call(&p, "StartSandbox", &a) < 0);
	fprintf(stderr, "  refused: %s\n", a.msg);
	check(strstr(a.msg, text));
	pod_read_pids(&p);
	check(sandbox_call(&p, "ShutdownSandbox", NULL) == 0 && process_gone(p.shim, 2000));
	answer_clear(&a);
	free(o.vmm_path);
	pod_fini(&p);
}

static double start_of_one(const char *ns)
{
	struct pod p;
	double t = now_ms();

	netns = ns;
	up(&p, "cost");
	t = now_ms() - t;
	down(&p);
	return t;
}

static int drive_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* What a network adds to the start of a pod: the median of pairs, one without and one with it. */
static double net_cost(void)
{
	enum { PAIRS = 7 };
	double d[PAIRS];

	for (int i = 0; i < PAIRS; i++) {
		double without = start_of_one("");

		d[i] = start_of_one(pod_net_path()) - without;
	}
	qsort(d, PAIRS, sizeof(d[0]), drive_compare);
	return d[PAIRS / 2];
}

static void case_network(void)
{
	struct pod p;

	pod_net_make();
	netns = pod_net_path();
	up(&p, "net");
	create(&p, "c1", "[\"sleep\",\"1000\"]", NULL);
	check(task_start(&p, "c1", "", NULL) == 0);
	net_mirrored(&p);
	net_carries(&p);
	/* The tap goes with the VM. What leads to it stays, and is replaced by the next one's. */
	check(pod_net_ip("-o link show husk0 >/dev/null") == 0);
	down(&p);
	check(pod_net_ip("-o link show husk0 >/dev/null 2>&1") != 0);
	up(&p, "net");
	check(node_ping(POD4) == 0 && node_ping(POD6) == 0);
	check(kill(p.shim, SIGKILL) == 0 && process_gone(p.vmm, 5000));
	pod_fini(&p);
	check(node_ping(POD4) != 0);
	/* Refused by name; then as before. */
	net_refuses("/nonexistent", "/nonexistent: No such file");
	net_refuses("/proc/self/ns/mnt", "not a network namespace");
	net_refuses("/proc/self/ns/net", "the host's own");
	check(pod_net_ip("link add eth1 type bridge && ip -n $(basename %s) link set eth1 up",
			 netns) == 0);
	net_refuses(netns, "interfaces eth");
	check(pod_net_ip("link del eth1") == 0);
	check(pod_net_ip("route add 10.0.0.0/8 table 100 via " NODE4) == 0);
	net_refuses(netns, "a table of its own");
	check(pod_net_ip("route del 10.0.0.0/8 table 100") == 0);
	up(&p, "net");
	check(node_ping(POD4) == 0);
	down(&p);
	ms_net = net_cost();
	netns = "";
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{ "life", case_life },
		{ "exec", case_exec },
		{ "share", case_share },
		{ "log", case_log },
		{ "errors", case_errors },
		{ "hung-disk", case_hung_disk },
		{ "vmm-killed", case_vmm_killed },
		{ "qemu-killed", case_qemu_killed },
		{ "shim-killed", case_shim_killed },
		{ "no-kernel", case_no_kernel },
		{ "network", case_network },
	};
	static const struct option options[] = {
		{ "backend", required_argument, NULL, 'b' },
		{ "bin", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	struct err e = { 0 };
	char *here;
	int c;

	check(program_dir(&here, &e) == 0);
	bin = str_fmt("%s/../bin", here);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			backend = optarg;
		else if (c == 'd')
			bin = optarg;
		else
			return 2;
	}
	shim_path = str_fmt("%s/../share/husk/vmlinux", bin);
	if (geteuid() != 0 || access(shim_path, R_OK) < 0) {
		fprintf(stderr, "skipped: this needs root and %s\n", shim_path);
		return 77;
	}
	free(shim_path);
	shim_path = str_fmt("%s/containerd-shim-husk-v2", bin);
	dir = test_dir("shim");
	make_layer();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool wanted = optind == argc;

		for (int k = optind; k < argc; k++)
			wanted |= str_eq(argv[k], cases[i].name);
		if (!wanted)
			continue;
		fprintf(stderr, "%s\n", cases[i].name);
		cases[i].run();
	}
	printf("{\"backend\":\"%s\",\"sandbox_ms\":%.0f,\"create_ms\":%.1f,\"start_ms\":%.1f,"
	       "\"exec_ms\":%.1f,\"stop_ms\":%.0f,\"net_start_ms\":%.0f,\"shim_pss_kib\":%ld,"
	       "\"vmm_pss_kib\":%ld}\n",
	       backend, ms_sandbox, ms_create, ms_start, ms_exec, ms_stop, ms_net, shim_pss,
	       vmm_pss);
	return remove_tree(dir, &e) < 0;
}
