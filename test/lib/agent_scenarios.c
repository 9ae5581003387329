/* What a shim does with an agent, and what a container sees. Runs against `drv`, wherever that is.
 */
#include "test/lib/unit.h"
#include "test/lib/agent_requests.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

#define STREAM_BULK (32u << 20)

/* ---- the tests ---- */

static void test_sandbox(void **state)
{
	Agent__CreateSandboxRequest req = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	Agent__CreateSandboxResponse *resp;
	Agent__StartContainerRequest early = AGENT__START_CONTAINER_REQUEST__INIT;

	early.id = (char *)"x";
	assert_int_equal(drive_code(&drv, "StartContainer", &early), -EBUSY);
	req.id = (char *)"";
	assert_int_equal(drive_code(&drv, "CreateSandbox", &req), -EINVAL);
	req.id = (char *)"pod";
	req.hostname = (char *)"seed";
	req.hosts = (char *)"127.0.0.1 localhost\n";
	req.resolv_conf = (char *)"nameserver 192.0.2.1\n";
	resp = (void *)drive(&drv, "CreateSandbox", &req);
	if (!resp)
		fail_msg("sandbox: %s", err_text(&drv.err));
	print_message("[ figure   ] guest kernel %s %s, agent ready at %lld us\n",
		      resp->kernel_release, resp->machine, (long long)resp->ready_ns / 1000);
	agent__create_sandbox_response__free_unpacked(resp, NULL);
	assert_int_equal(drive_code(&drv, "CreateSandbox", &req), -EEXIST);
	driver_events(&drv);
}

static void test_hello(void **state)
{
	unsigned status;

	assert_string_equal(run_script("echo hello; cat /etc/layer; exit 3", &status),
			    "hello\ntop\n");
	assert_int_equal(status, 3);
}

static void test_view(void **state)
{
	unsigned status;
	char *out = run_script(
		"set -e\n"
		"[ $$ = 1 ]; [ \"$(hostname)\" = seed ]; [ \"$HOME\" = /root ]\n"
		"[ \"$PATH\" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ]\n"
		"[ \"$(pwd)\" = / ]; grep -q localhost /etc/hosts\n"
		"[ \"$(stat -c %a /dev/shm)\" = 1777 ]\n"
		"[ \"$(readlink /dev/ptmx)\" = pts/ptmx ]\n"
		"echo x >/dev/null; [ \"$(head -c 4 /dev/zero | wc -c)\" = 4 ]\n"
		"[ \"$(readlink /dev/stdout)\" = /proc/self/fd/1 ]\n"
		"! echo 1 >/proc/sys/kernel/sysrq 2>/dev/null\n"
		"! mkdir /sys/fs/cgroup/x 2>/dev/null\n"
		"[ \"$(cat /proc/self/cgroup | grep ^0:)\" = 0::/ ]\n"
		"[ -z \"$(cat /proc/kcore 2>/dev/null | head -c 1)\" ]\n"
		"echo w >/etc/new; rm /etc/plain; [ ! -e /etc/plain ]\n"
		"[ \"$(umask)\" = 0022 ]; [ ! -e /dev/console ]\n"
		"[ \"$(ls /proc/self/fd | wc -l)\" = 4 ]\n" /* 0 1 2, and ls' own */
		"[ \"$(ulimit -n)\" = 1024 ]\n"
		"[ \"$(grep CapEff /proc/self/status)\" = 'CapEff:	00000000a80425fb' ]\n"
		"[ \"$(grep Seccomp: /proc/self/status)\" = 'Seccomp:	0' ]\n"
		"[ \"$(mount | grep -c ' / type overlay')\" = 1 ]; mount | wc -l; echo fine",
		&status);

	assert_text(out, "fine");
	assert_int_equal(status, 0);
}

/* Another container's disks are not to be had, even with CAP_MKNOD. */
static void test_devices(void **state)
{
	char *out = run_script(
		"mknod /dev/other b 254 0; cat /dev/other; mknod /dev/m c 1 1; cat /dev/m;\n"
		"mknod /null c 1 3 && echo x >/null && echo fine",
		NULL);

	assert_text(out, "fine");
}

static void test_missing_command(void **state)
{
	static const struct {
		const char *command;
		int error;
		const char *text;
	} cases[] = {
		{ "no-such-command", ENOENT, "executable file not found in $PATH" },
		{ "/no/such/file", ENOENT, "No such file" },
		{ "/etc/plain", EACCES, "Permission denied" },
		{ "/etc", EACCES, "Permission denied" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct setup s;
		Agent__StartContainerResponse *r;
		size_t events = drv.n_events;

		request_container(&s, "");
		s.args[0] = (char *)cases[i].command;
		do_create(&s);
		r = do_start(s.id);
		assert_non_null(r->failure);
		assert_string_equal(r->failure->stage, "exec");
		assert_int_equal(r->failure->error, cases[i].error);
		assert_text(r->failure->message, cases[i].text);
		assert_text(r->failure->message, cases[i].command);
		start_free(r);
		assert_int_equal(do_kill(s.id, "", SIGTERM, false), -ENOENT);
		do_remove(s.id);
		assert_int_equal(drv.n_events, events);
	}
}

static void test_user_and_cwd(void **state)
{
	struct setup s;
	unsigned status;
	Agent__StartContainerResponse *r;
	char *out;

	request_container(
		&s,
		"id; pwd; umask; echo $HOME; echo out >/dev/stdout; grep NoNew /proc/self/status;"
		"grep CapEff /proc/self/status");
	s.user.name = (char *)"app";
	s.user.umask = 027;
	s.process.cwd = (char *)"/made/for/it";
	s.process.no_new_privileges = true;
	out = run_to_end(&s, &status);
	assert_int_equal(status, 0);
	assert_text(out, "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)");
	assert_text(
		out,
		"/made/for/it\n0027\n/home/app\nout\nNoNewPrivs:\t1\nCapEff:\t0000000000000000");

	request_container(&s, "id -u; id -g; pwd");
	s.user.name = (char *)"4000:extra";
	s.process.cwd = (char *)"/closed"; /* only root may enter; the image's choice */
	assert_string_equal(run_to_end(&s, &status), "4000\n2000\n/closed\n");

	request_container(&s, "");
	s.user.name = (char *)"nobody-here";
	do_create(&s);
	r = do_start(s.id);
	assert_string_equal(r->failure->stage, "user");
	assert_int_equal(r->failure->error, ENOENT);
	start_free(r);
	do_remove(s.id);
}

static void test_readonly_root(void **state)
{
	struct setup s;
	unsigned status;

	request_container(&s, "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm");
	s.rootfs.readonly = true;
	assert_string_equal(run_to_end(&s, &status), "refused\nshm\n");
	/* No upper disk at all, and one layer only: its mount points are not all there. */
	request_container(&s, "touch /x 2>/dev/null || echo refused");
	s.rootfs.upper = NULL;
	s.req.n_mounts = 0;
	s.req.n_masked_paths = s.req.n_readonly_paths = 0;
	assert_string_equal(run_to_end(&s, &status), "refused\n");
	request_container(&s, "cat /etc/layer; touch /x 2>/dev/null || echo refused");
	s.rootfs.upper = NULL;
	s.rootfs.n_lower = 1;
	s.req.n_mounts = 0;
	s.req.n_masked_paths = s.req.n_readonly_paths = 0;
	assert_string_equal(run_to_end(&s, &status), "base\nrefused\n");
}

static void test_dangling_mount_point(void **state)
{
	struct setup s;
	unsigned status;

	request_container(&s, "cat /nowhere/file");
	s.mount[7].destination = (char *)"/etc/dangling";
	assert_string_equal(run_to_end(&s, &status), "127.0.0.1 localhost\n");
}

static void test_stdin(void **state)
{
	struct setup s;
	int in, out;
	char *text;

	request_container(&s, "cat; echo done");
	s.stdio.stdin_stream = drv.next_stream++;
	s.stdio.stdout_stream = drv.next_stream++;
	do_create(&s);
	do_start_ok(s.id);
	/* Streams after the start, and the host ends its direction of stdin only. */
	out = drive_stream(&drv, s.stdio.stdout_stream);
	in = drive_stream(&drv, s.stdio.stdin_stream);
	assert_int_equal(write_all(in, "one\n", 4), 0);
	drive_expect(out, "one\n");
	assert_int_equal(write_all(in, "two\n", 4), 0);
	assert_int_equal(shutdown(in, SHUT_WR), 0);
	text = drive_read_all(out, NULL);
	assert_string_equal(text, "two\ndone\n");
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	close(in);
	do_remove(s.id);
}

/* Much output while another stream is not read at all, and separate stderr. */
static void test_bulk(void **state)
{
	struct setup s;
	size_t total;
	int out, err_fd, stuck;
	uint64_t begin;
	struct exec e;
	struct setup idle;

	start_idle(&idle);
	request_exec(&e, idle.id, "stuck", "cat /dev/zero");
	e.stdio.stdout_stream = drv.next_stream++;
	stuck = drive_stream(&drv, e.stdio.stdout_stream);
	do_exec_ok(&e);

	request_container(&s, "echo problem >&2; head -c 33554432 /dev/zero");
	s.stdio.stdout_stream = drv.next_stream++;
	s.stdio.stderr_stream = drv.next_stream++;
	out = drive_stream(&drv, s.stdio.stdout_stream);
	err_fd = drive_stream(&drv, s.stdio.stderr_stream);
	do_create(&s);
	begin = now_mono_ns();
	do_start_ok(s.id);
	(void)drive_read_all(out, &total);
	assert_int_equal(total, STREAM_BULK);
	print_message(
		"[ figure   ] stdout: %llu MiB/s, with a stuck neighbour\n",
		(unsigned long long)(STREAM_BULK / MIB * 1000000000ull / (now_mono_ns() - begin)));
	assert_string_equal(drive_read_all(err_fd, NULL), "problem\n");
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	do_remove(s.id);
	assert_int_equal(do_kill(idle.id, "stuck", SIGKILL, false), 0);
	assert_int_equal(drive_exit(&drv, idle.id, "stuck")->status, 137);
	close(stuck);
	stop_idle(&idle);
}

static void test_tty(void **state)
{
	struct setup s;
	Agent__ResizeTtyRequest rz = AGENT__RESIZE_TTY_REQUEST__INIT;
	int in, out;

	request_container(
		&s,
		"stty size; tty; [ -c /dev/console ] && echo console; read x; stty size; echo got "
		"$x");
	s.process.terminal = true;
	s.process.width = 80;
	s.process.height = 25;
	s.stdio.stdin_stream = drv.next_stream++;
	s.stdio.stdout_stream = drv.next_stream++;
	in = drive_stream(&drv, s.stdio.stdin_stream);
	out = drive_stream(&drv, s.stdio.stdout_stream);
	do_create(&s);
	do_start_ok(s.id);
	drive_expect(out, "25 80\r\n/dev/pts/0\r\nconsole\r\n");
	rz.id = s.id;
	rz.width = 132;
	rz.height = 43;
	assert_int_equal(drive_code(&drv, "ResizeTty", &rz), 0);
	assert_int_equal(write_all(in, "word\n", 5), 0);
	assert_string_equal(drive_read_all(out, NULL), "word\r\n43 132\r\ngot word\r\n");
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	assert_int_equal(drive_code(&drv, "ResizeTty", &rz), -ENOENT);
	close(in);
	do_remove(s.id);
}

static void test_exec(void **state)
{
	struct setup s;
	struct exec e;
	Agent__StartContainerResponse *r;
	char *text;
	int out, in;

	start_idle(&s);
	text = exec_script(
		s.id, "one",
		"hostname; echo $$ >/tmp/pid; [ $(cat /proc/1/comm) = sh ] && echo same; exit 5");
	assert_string_equal(text, "seed\nsame\n");
	assert_int_equal(drive_exit(&drv, s.id, "one")->status, 5);

	request_exec(&e, s.id, "bad", "");
	e.args[0] = (char *)"nope";
	r = (void *)drive(&drv, "ExecProcess", &e.req);
	assert_non_null(r);
	assert_non_null(r->failure);
	assert_int_equal(r->failure->error, ENOENT);
	start_free(r);

	/* Its cwd is not made. */
	request_exec(&e, s.id, "cwd", "true");
	e.process.cwd = (char *)"/not/there";
	r = (void *)drive(&drv, "ExecProcess", &e.req);
	assert_string_equal(r->failure->stage, "cwd");
	start_free(r);

	/* A terminal of the container's own devpts. */
	request_exec(&e, s.id, "tty", "stty size; cat");
	e.process.terminal = true;
	e.process.width = 100;
	e.process.height = 30;
	e.stdio.stdin_stream = drv.next_stream++;
	e.stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, e.stdio.stdout_stream);
	in = drive_stream(&drv, e.stdio.stdin_stream);
	do_exec_ok(&e);
	drive_expect(out, "30 100\r\n");
	assert_int_equal(write_all(in, "\004", 1), 0);
	(void)drive_read_all(out, NULL);
	assert_int_equal(drive_exit(&drv, s.id, "tty")->status, 0);
	close(in);

	/* sh and sleep, which it may not have come to yet. */
	for (int i = 0; i < 100 && count_pids(s.id) != 2; i++)
		usleep(50000);
	assert_int_equal(count_pids(s.id), 2);

	/* An exec that is there when the container goes: its exit comes first. */
	request_exec(&e, s.id, "late", "sleep 1000");
	do_exec_ok(&e);
	request_exec(&e, s.id, "late", "true");
	assert_int_equal(drive_code(&drv, "ExecProcess", &e.req), -EEXIST);
	assert_int_equal(do_kill(s.id, "", SIGTERM, false), 0);
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 7);
	assert_int_equal(drive_exit(&drv, s.id, "late")->status, 137);
	assert_true(drive_exit(&drv, s.id, "late")->seq < drive_exit(&drv, s.id, "")->seq);
	assert_int_equal(drive_code(&drv, "ExecProcess", &e.req), -EBUSY);
	assert_int_equal(do_kill(s.id, "", SIGTERM, false), -ENOENT);
	do_remove(s.id);
}

static void test_pod_pid_namespace(void **state)
{
	struct setup a, b;
	struct exec e;

	request_container(&a, "sleep 1000 & wait");
	a.req.pid_namespace = AGENT__NAMESPACE_MODE__POD;
	do_create(&a);
	do_start_ok(a.id);
	/* a's shell may not have come to its sleep yet. */
	request_container(
		&b,
		"n=0; until ps | grep -q ' sleep 100[0]$' || [ $((n += 1)) -gt 100 ]; do sleep "
		"0.1; done;"
		"[ $$ != 1 ] && [ $(cat /proc/1/comm) = pause ] && ps | grep -c ' sleep 100[0]$';"
		"ls /proc/1/root 2>/dev/null | wc -l");
	b.req.pid_namespace = AGENT__NAMESPACE_MODE__POD;
	assert_string_equal(run_to_end(&b, NULL), "1\n0\n");
	/* An orphan of the namespace goes to the pause process, and leaves no zombie. */
	assert_string_equal(
		exec_script(a.id, "orphan", "(sleep 0 &) ; sleep 1; ps | grep -c '\\[sleep\\]'"),
		"0\n");
	/* The first process goes, the rest of the container with it. */
	request_exec(&e, a.id, "rest", "sleep 1000");
	do_exec_ok(&e);
	assert_int_equal(do_kill(a.id, "", SIGKILL, false), 0);
	assert_int_equal(drive_exit(&drv, a.id, "rest")->status, 137);
	assert_int_equal(drive_exit(&drv, a.id, "")->status, 137);
	do_remove(a.id);
}

static void test_signals(void **state)
{
	struct setup s;
	struct exec e;
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;

	request_container(&s, "true");
	do_create(&s);
	assert_int_equal(do_kill(s.id, "", SIGTERM, false), -EBUSY);
	do_start_ok(s.id);
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	do_remove(s.id);

	start_idle(&s);
	rm.id = s.id;
	assert_int_equal(drive_code(&drv, "RemoveContainer", &rm), -EBUSY);
	request_exec(&e, s.id, "x", "sleep 1000");
	do_exec_ok(&e);
	assert_int_equal(do_kill(s.id, "x", 0, false), -EINVAL);
	assert_int_equal(do_kill(s.id, "x", 65, false), -EINVAL);
	assert_int_equal(do_kill(s.id, "", SIGUSR1, true), 0); /* ends the exec, not the init */
	assert_int_equal(drive_exit(&drv, s.id, "x")->status, 128 + SIGUSR1);
	assert_int_equal(do_kill(s.id, "", SIGKILL, true), 0);
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 137);
	do_remove(s.id);
	assert_int_equal(drive_code(&drv, "RemoveContainer", &rm), -ENOENT);
}

/* More than any pipe or socket holds, both ways at once. */
static void test_stdin_bulk(void **state)
{
	static uint8_t block[65536];
	size_t total = 0, sent = 0, len = 4 << 20;
	struct setup s;
	int in, out;

	request_container(&s, "cat");
	s.stdio.stdin_stream = drv.next_stream++;
	s.stdio.stdout_stream = drv.next_stream++;
	in = drive_stream(&drv, s.stdio.stdin_stream);
	out = drive_stream(&drv, s.stdio.stdout_stream);
	do_create(&s);
	do_start_ok(s.id);
	assert_int_equal(fd_set_nonblock(in, true), 0);
	while (total < len) {
		struct pollfd p[2] = { { .fd = out, .events = POLLIN },
				       { .fd = sent < len ? in : -1, .events = POLLOUT } };

		assert_true(poll(p, 2, 30000) > 0);
		if (p[1].revents & POLLOUT) {
			ssize_t n = write(in, block, MIN_OF(sizeof(block), len - sent));

			sent += n > 0 ? (size_t)n : 0;
			if (sent == len)
				assert_int_equal(shutdown(in, SHUT_WR), 0);
		}
		if (p[0].revents) {
			ssize_t n = read(out, block, sizeof(block));

			assert_true(n > 0);
			total += (size_t)n;
		}
	}
	assert_string_equal(drive_read_all(out, NULL), "");
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	close(in);
	do_remove(s.id);
}

static void test_settings(void **state)
{
	Agent__CreateContainerRequest__SysctlsEntry sysctl =
		AGENT__CREATE_CONTAINER_REQUEST__SYSCTLS_ENTRY__INIT;
	Agent__CreateContainerRequest__SysctlsEntry *sysctls[] = { &sysctl };
	Agent__Rlimit lim = AGENT__RLIMIT__INIT, *limits[] = { &lim };
	ProtobufCBinaryData env[] = { { 3, (uint8_t *)"A=b" },
				      { 9, (uint8_t *)"HOME=/tmp" },
				      { 18, (uint8_t *)"PATH=/nowhere:/bin" } };
	struct setup s;
	unsigned status;

	request_container(
		&s,
		"hostname; cat /proc/sys/kernel/msgmax; ulimit -c; echo $A $HOME $PATH;"
		"cat /proc/self/oom_score_adj; ipcs -q | wc -l >/dev/null; hostname >/dev/null");
	s.req.hostname = (char *)"own";
	sysctl.key = (char *)"kernel.msgmax";
	sysctl.value = (char *)"4321";
	s.req.sysctls = sysctls;
	s.req.n_sysctls = 1;
	lim.type = (char *)"RLIMIT_CORE";
	s.process.rlimits = limits;
	s.process.n_rlimits = 1;
	s.process.env = env;
	s.process.n_env = 3;
	s.process.oom_score_adj = 500;
	assert_string_equal(run_to_end(&s, &status), "own\n4321\n0\nb /tmp /nowhere:/bin\n500\n");
	/* Others do not see it. */
	assert_string_equal(run_script("hostname; cat /proc/sys/kernel/msgmax", NULL),
			    "seed\n8192\n");
	/* What one container leaves in the pod's IPC namespace and /dev/shm, the next one finds. */
	request_container(&s, "echo shared >/dev/shm/file");
	s.req.ipc_namespace = AGENT__NAMESPACE_MODE__POD;
	(void)run_to_end(&s, NULL);
	assert_string_equal(run_script("cat /dev/shm/file; rm /dev/shm/file", NULL), "shared\n");
}

static void test_privileged(void **state)
{
	struct setup s;

	request_container(
		&s,
		"[ -e /dev/urandom ] && ls /dev | wc -l | { read n; [ $n -gt 15 ] && echo many; };"
		"mkdir /sys/fs/cgroup/sub/ && rmdir /sys/fs/cgroup/sub && echo cgroup;"
		"mount -t tmpfs none /tmp && echo mounted;"
		"mkdir -p /sys/fs/cgroup/a/b/c && echo nested");
	s.req.privileged = true;
	s.caps.bounding = s.caps.effective = s.caps.permitted = ALL_CAPS;
	if (!drv.in_vm) /* not more than this host has to give */
		s.caps.bounding = s.caps.effective = s.caps.permitted = ALL_CAPS & ~(1ull << 24);
	s.req.n_masked_paths = s.req.n_readonly_paths = 0;
	s.mount[4].n_options = s.mount[5].n_options = 3; /* without "ro" */
	assert_string_equal(run_to_end(&s, NULL), "many\ncgroup\nmounted\nnested\n");
}

/* A layer that is just being detached is wanted again: the create waits for it. */
static void test_create_while_removing(void **state)
{
	for (int i = 0; i < 5; i++) {
		struct setup a, b;
		Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;
		int removed, created;

		request_container(&a, "true");
		do_create(&a);
		request_container(&b, "cat /etc/layer");
		rm.id = a.id;
		drive_two(&drv, "RemoveContainer", &rm, &removed, "CreateContainer", &b.req,
			  &created);
		assert_int_equal(removed, 0);
		assert_int_equal(created, 0);
		do_start_ok(b.id);
		assert_int_equal(drive_exit(&drv, b.id, "")->status, 0);
		do_remove(b.id);
	}
}

static void test_latency(void **state)
{
	struct setup s;
	struct exec e;
	char name[16];
	uint64_t begin, created = 0, started;
	const int n = 20, creates = 8;

	for (int i = 0; i < creates; i++) {
		if (i > 0)
			do_remove(s.id);
		request_container(&s, "exec sleep 1000");
		begin = now_mono_ns();
		do_create(&s);
		created += now_mono_ns() - begin;
	}
	begin = now_mono_ns();
	do_start_ok(s.id);
	started = now_mono_ns();
	print_message("[ figure   ] create %llu us, start %llu us\n",
		      (unsigned long long)created / 1000 / creates,
		      (unsigned long long)(started - begin) / 1000);
	begin = now_mono_ns();
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "e%d", i);
		request_exec(&e, s.id, name, "");
		e.args[0] = (char *)"/bin/true";
		e.process.n_args = 1;
		do_exec_ok(&e);
		assert_int_equal(drive_exit(&drv, s.id, name)->status, 0);
	}
	print_message("[ figure   ] exec of true, to its exit event: %llu us\n",
		      (unsigned long long)(now_mono_ns() - begin) / 1000 / n);
	begin = now_mono_ns();
	stop_idle(&s);
	print_message("[ figure   ] kill and remove %llu us\n",
		      (unsigned long long)(now_mono_ns() - begin) / 1000);
}

/* The last user's disks are named, a shared layer stays as long as it is used. */
static void test_disks(void **state)
{
	struct setup a, b;
	char id[sizeof(b.id)];
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;
	Agent__RemoveContainerResponse *r;

	start_idle(&a);
	start_idle(&b);
	request_disk(&b.scratch, a.scratch.first_sector, false);
	memcpy(id, b.id, sizeof(id));
	snprintf(b.id, sizeof(b.id), "other");
	assert_int_equal(drive_code(&drv, "CreateContainer", &b.req), -EBUSY);
	memcpy(b.id, id, sizeof(id));
	assert_int_equal(do_kill(a.id, "", SIGKILL, false), 0);
	(void)drive_exit(&drv, a.id, "");
	rm.id = a.id;
	r = (void *)drive(&drv, "RemoveContainer", &rm);
	assert_non_null(r);
	assert_int_equal(r->n_detached_disks, 1);
	assert_int_equal(r->detached_disks[0], a.scratch.first_sector);
	agent__remove_container_response__free_unpacked(r, NULL);
	assert_int_equal(do_kill(b.id, "", SIGKILL, false), 0);
	(void)drive_exit(&drv, b.id, "");
	rm.id = b.id;
	r = (void *)drive(&drv, "RemoveContainer", &rm);
	assert_non_null(r);
	assert_int_equal(r->n_detached_disks, 3);
	agent__remove_container_response__free_unpacked(r, NULL);
	/* A disk without a file system: refused, and forgotten. */
	request_container(&a, "true");
	a.scratch.first_sector = DISK_SCRATCH(SCRATCHES + 5);
	assert_true(drive_code(&drv, "CreateContainer", &a.req) < 0);
	assert_text(drv.err.msg, "disk");
	request_container(&a, "true");
	assert_string_equal(run_to_end(&a, NULL), "");
}

static void test_early_exits(void **state)
{
	for (int i = 0; i < 20; i++) {
		unsigned status;

		(void)run_script("exit 9", &status);
		assert_int_equal(status, 9);
	}
	/* Exactly one event for each, with numbers that have no gap. */
	for (size_t i = 0; i < drv.n_events; i++) {
		assert_int_equal(drv.events[i].seq, drv.events[0].seq + i);
		for (size_t j = 0; j < i; j++)
			assert_false(!drv.events[i].oom &&
				     str_eq(drv.events[i].id, drv.events[j].id) &&
				     str_eq(drv.events[i].exec_id, drv.events[j].exec_id) &&
				     !drv.events[j].oom);
	}
}

static void test_oom(void **state)
{
	struct setup s;
	Agent__CreateContainerRequest__CgroupEntry limit =
		AGENT__CREATE_CONTAINER_REQUEST__CGROUP_ENTRY__INIT;
	Agent__CreateContainerRequest__CgroupEntry *list[1] = { &limit };
	const struct seen_event *ev;
	bool oom = false;

	only_in_vm("the host may have no memory controller in cgroup v2");
	request_container(&s, "tail /dev/zero");
	limit.key = (char *)"memory.max";
	limit.value = (char *)"16777216";
	s.req.cgroup = list;
	s.req.n_cgroup = 1;
	do_create(&s);
	do_start_ok(s.id);
	ev = drive_exit(&drv, s.id, "");
	assert_true(ev->oom_killed);
	for (size_t i = 0; i < drv.n_events; i++)
		oom |= drv.events[i].oom && str_eq(drv.events[i].id, s.id);
	assert_true(oom);
	do_remove(s.id);
	limit.key = (char *)"memory.nonsense";
	request_container(&s, "true");
	s.req.cgroup = list;
	s.req.n_cgroup = 1;
	assert_int_equal(drive_code(&drv, "CreateContainer", &s.req), -ENOSYS);
}

static void test_refusals(void **state)
{
	struct setup s;
	Agent__StartContainerResponse *r;
	char *bad[] = { (char *)"size=nonsense" };

	request_container(&s, "true");
	s.mount[0].type = (char *)"nfs";
	assert_int_equal(drive_code(&drv, "CreateContainer", &s.req), -ENOSYS);
	request_container(&s, "true");
	s.mount[7].source = (char *)"/etc/shadow";
	assert_int_equal(drive_code(&drv, "CreateContainer", &s.req), -ENOSYS);
	request_container(&s, "true");
	s.req.id = (char *)"../up";
	assert_int_equal(drive_code(&drv, "CreateContainer", &s.req), -EINVAL);
	/* What only the kernel knows to be wrong is a failed start. */
	request_container(&s, "true");
	request_mount(&s, "tmpfs", "/tmp", "tmpfs", bad, 1);
	do_create(&s);
	r = do_start(s.id);
	assert_non_null(r->failure);
	assert_string_equal(r->failure->stage, "mount");
	assert_text(r->failure->message, "/tmp");
	start_free(r);
	do_remove(s.id);
}

static void test_hostile_paths(void **state)
{
	struct setup s;
	struct exec e;
	char *out;
	Agent__StartContainerResponse *r;

	/* The container swaps what an exec's set-up looks at. */
	request_container(&s, "exec sleep 1000");
	s.scratch.first_sector = DISK_SCRATCH(SCRATCHES - 2);
	do_create(&s);
	do_start_ok(s.id);
	out = exec_script(s.id, "swap",
			  "rm /etc/passwd; mkfifo /etc/passwd; rm -rf /etc/group;"
			  "ln -s /proc/1/root/etc/group /etc/group; echo ok");
	assert_string_equal(out, "ok\n");
	request_exec(&e, s.id, "named", "true");
	e.user.name = (char *)"app";
	r = (void *)drive(&drv, "ExecProcess", &e.req);
	assert_non_null(r);
	assert_string_equal(r->failure->stage, "user");
	start_free(r);
	stop_idle(&s);
}

int agent_scenarios(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sandbox),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_missing_command),
		cmocka_unit_test(test_user_and_cwd),
		cmocka_unit_test(test_readonly_root),
		cmocka_unit_test(test_dangling_mount_point),
		cmocka_unit_test(test_stdin),
		cmocka_unit_test(test_stdin_bulk),
		cmocka_unit_test(test_bulk),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_privileged),
		cmocka_unit_test(test_create_while_removing),
		cmocka_unit_test(test_latency),
		cmocka_unit_test(test_tty),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_pod_pid_namespace),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_early_exits),
		cmocka_unit_test(test_oom),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_hostile_paths),
	};

	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL, NULL);
}
