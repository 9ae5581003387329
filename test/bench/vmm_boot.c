/*
 * Takes the time of one boot, for bench-boot.
 *
 *	vmm_boot [OPTION]... -- HUSK-VMM ARG...	until the agent has connected
 *	vmm_boot --exit -- PROGRAM ARG...	until the program has exited
 *	vmm_boot --tsc				no boot: the frequency of this machine's TSC in kHz
 *
 * Prints one JSON object: the wall time from before the program's start ("ms"); of a boot also when
 * the monitor took the request ("request_ms") and started the vCPUs ("vcpu_start_ms"), and, with
 * --clock, the guest's own clock when the agent was ready ("guest_ns"), asked of the agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/vmm.pb-c.h"

#define BOOT_SECONDS 120
#define CALL_MS 60000
#define CONTROL_FD 3
#define ARGS_MAX 64

struct options {
	unsigned vcpus, memory_mib;
	const char *cmdline;
	bool until_exit, clock;
};

static int die(const char *what, const struct err *err)
{
	fprintf(stderr, "vmm_boot: %s: %s\n", what, err ? err_text(err) : strerror(errno));
	return 1;
}

static int wait_exit(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void print_ms(uint64_t from_ns, uint64_t to_ns)
{
	printf("{\"ms\": %.3f", (double)(to_ns - from_ns) / 1e6);
}

static int time_exit(char **argv)
{
	struct err err = { 0 };
	struct spawn s = spawn_of(argv[0], argv, OOM_SCORE_KEEP);
	pid_t pid;
	cleanup_fd int pidfd = -1;
	int status;
	uint64_t end;
	uint64_t begin;

	s.fds[2] = 2;
	s.n_fds = 3;
	s.die_with_parent = true;
	begin = now_mono_ns();
	if (spawn_run(&s, &pid, &pidfd, &err) < 0)
		return die(argv[0], &err);
	status = wait_exit(pid);
	end = now_mono_ns();
	if (status != 0) {
		fprintf(stderr, "vmm_boot: %s: exit status %d\n", argv[0], status);
		return 1;
	}
	print_ms(begin, end);
	printf("}\n");
	return 0;
}

static int send_boot(int control, const struct options *o, int agent)
{
	Vmm__Boot boot = VMM__BOOT__INIT;
	Vmm__Request q = VMM__REQUEST__INIT;
	uint8_t data[4096];
	int fds[2] = { agent, -1 };
	ssize_t n;

	boot.vcpus = o->vcpus;
	boot.memory_mib = o->memory_mib;
	boot.cmdline = (char *)o->cmdline;
	q.id = 1;
	q.request_case = VMM__REQUEST__REQUEST_BOOT;
	q.boot = &boot;
	if (vmm__request__get_packed_size(&q) > sizeof(data)) {
		errno = E2BIG;
		return -1;
	}
	/* A console as the shim gives one; a good boot has nothing to say there. */
	fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
	n = fdpass_send(control, data, vmm__request__pack(&q, data), fds, 2, 0);
	fd_close(&fds[1]);
	if (n < 0)
		errno = (int)-n;
	return n < 0 ? -1 : 0;
}

struct times {
	uint64_t boot_ns, vcpu_start_ns;
};

/* 1: the agent has connected; 0: another packet; -1: the boot failed (text printed). */
static int take_packet(int control, struct times *ret)
{
	static uint8_t data[VMCTL_PACKET_MAX];
	ssize_t n = recv(control, data, sizeof(data), 0);
	int r;
	Vmm__Packet *p;

	if (n <= 0) {
		fprintf(stderr, "vmm_boot: the monitor has closed its control socket\n");
		return -1;
	}
	p = vmm__packet__unpack(NULL, (size_t)n, data);
	if (!p) {
		fprintf(stderr, "vmm_boot: malformed packet\n");
		return -1;
	}
	r = 0;
	if (p->error != 0 || p->body_case == VMM__PACKET__BODY_ENDED) {
		fprintf(stderr, "vmm_boot: the VM does not run: %s\n",
			p->error ? p->message : p->ended->message);
		r = -1;
	} else if (p->body_case == VMM__PACKET__BODY_AGENT_CONNECTED) {
		ret->boot_ns = p->agent_connected->boot_ns;
		ret->vcpu_start_ns = p->agent_connected->vcpu_start_ns;
		r = 1;
	}
	vmm__packet__free_unpacked(p, NULL);
	return r;
}

static int wait_connected(int control, struct times *ret)
{
	struct pollfd p = { .fd = control, .events = POLLIN };
	int r;

	do {
		if (poll(&p, 1, BOOT_SECONDS * 1000) <= 0) {
			fprintf(stderr, "vmm_boot: no agent within %d s\n", BOOT_SECONDS);
			return -1;
		}
		r = take_packet(control, ret);
	} while (r == 0);
	return r;
}

struct clock_call {
	struct loop *loop;
	int64_t ready_ns;
	struct err err;
};

static void on_sandbox(const struct ttrpc_result *res, void *arg)
{
	struct clock_call *c = arg;

	if (res->code < 0) {
		err_set(&c->err, res->code, "%s", err_text(res->err));
	} else {
		const Agent__CreateSandboxResponse *resp = (const void *)res->resp;

		c->ready_ns = resp->ready_ns;
	}
	loop_stop(c->loop, res->code);
}

/* Takes `agent` over. */
static int ask_clock(int agent, int64_t *ret_ns)
{
	Agent__CreateSandboxRequest req = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	struct clock_call c = { .ready_ns = 0 };
	struct ttrpc_client *client = NULL;
	int r;

	req.id = (char *)"bench";
	if (loop_new(&c.loop, &c.err) < 0) {
		close(agent);
		return die("loop", &c.err);
	}
	r = ttrpc_client_new(c.loop, agent, NULL, NULL, &client, &c.err);
	if (r == 0)
		r = ttrpc_client_call(client, &agent__agent__descriptor, "CreateSandbox", &req.base,
				      CALL_MS, on_sandbox, &c);
	if (r == 0)
		r = loop_run(c.loop);
	ttrpc_client_free(client);
	loop_free(c.loop);
	if (r < 0)
		return die("CreateSandbox", &c.err);
	*ret_ns = c.ready_ns;
	return 0;
}

static int time_agent(const struct options *o, char **argv, int n)
{
	struct err err = { 0 };
	char *args[ARGS_MAX + 3];
	pid_t pid;
	int sv[2], av[2];
	struct times times = { 0 };
	cleanup_fd int pidfd = -1, control = -1, agent = -1, agent_vm = -1;
	uint64_t begin, end;
	struct spawn s;
	int64_t guest_ns;
	int r;

	if (n > ARGS_MAX) {
		errno = E2BIG;
		return die("arguments", NULL);
	}
	memcpy(args, argv, (size_t)n * sizeof(args[0]));
	args[n] = (char *)"--control-fd";
	args[n + 1] = (char *)"3";
	args[n + 2] = NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, av) < 0)
		return die("socketpair", NULL);
	control = sv[0];
	agent = av[0];
	agent_vm = av[1];
	s = spawn_of(args[0], args, OOM_SCORE_KEEP);
	s.fds[2] = 2;
	s.fds[CONTROL_FD] = sv[1];
	s.n_fds = CONTROL_FD + 1;
	s.die_with_parent = true;

	begin = now_mono_ns();
	if (spawn_run(&s, &pid, &pidfd, &err) < 0)
		return die(args[0], &err);
	close(sv[1]);
	r = send_boot(control, o, agent_vm) < 0 ? die("send Boot", NULL) : 0;
	fd_close(&agent_vm);
	if (r == 0)
		r = wait_connected(control, &times) < 0 ? 1 : 0;
	end = now_mono_ns();
	guest_ns = 0;
	if (r == 0 && o->clock)
		r = ask_clock(take_fd(&agent), &guest_ns);
	if (r == 0) {
		print_ms(begin, end);
		printf(", \"request_ms\": %.3f, \"vcpu_start_ms\": %.3f",
		       (double)(times.boot_ns - begin) / 1e6,
		       (double)(times.vcpu_start_ns - begin) / 1e6);
		if (o->clock)
			printf(", \"guest_ns\": %lld", (long long)guest_ns);
		printf("}\n");
	}
	fd_close(&control); /* ends the VM */
	wait_exit(pid);
	return r;
}

/* Over 50 ms, against the clock. 0 where there is no such counter. */
static int print_tsc(void)
{
	uint64_t khz = 0;
#ifdef __x86_64__
	uint64_t ns = now_mono_ns(), tsc = __builtin_ia32_rdtsc();
	usleep(50000);
	ns = now_mono_ns() - ns;
	tsc = __builtin_ia32_rdtsc() - tsc;
	khz = tsc * 1000000 / ns;
#endif
	printf("%llu\n", (unsigned long long)khz);
	return 0;
}

static noreturn_fn void usage(void)
{
	fprintf(stderr,
		"usage: vmm_boot [--vcpus N] [--memory MIB] [--cmdline TEXT] [--clock]"
		" -- HUSK-VMM ARG...\n"
		"       vmm_boot --exit -- PROGRAM ARG...\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
		{ "vcpus", required_argument, NULL, 'c' },
		{ "memory", required_argument, NULL, 'm' },
		{ "cmdline", required_argument, NULL, 'a' },
		{ "exit", no_argument, NULL, 'x' },
		{ "clock", no_argument, NULL, 'k' },
		{ "tsc", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	struct options o = { .vcpus = 1, .memory_mib = 256, .cmdline = "" };
	uint64_t n;
	int c;

	while ((c = getopt_long(argc, argv, "+", table, NULL)) != -1) {
		if (c == 'c' && str_to_u64(optarg, 1, 64, &n) == 0)
			o.vcpus = (unsigned)n;
		else if (c == 'm' && str_to_u64(optarg, 64, 1 << 20, &n) == 0)
			o.memory_mib = (unsigned)n;
		else if (c == 'a')
			o.cmdline = optarg;
		else if (c == 'x')
			o.until_exit = true;
		else if (c == 'k')
			o.clock = true;
		else if (c == 't')
			return print_tsc();
		else
			usage();
	}
	if (optind >= argc)
		usage();
	return o.until_exit ? time_exit(argv + optind)
			    : time_agent(&o, argv + optind, argc - optind);
}
