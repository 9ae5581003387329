#include "test/lib/shim/pod_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/shim_client.h"
#include "test/lib/vmm_pattern.h"

#define CHUNK (64 * 1024)
#define TCP_HEADERS4 40

static char pod_path[64], node_path[64], pod_name[32], node_name[32];

static int run(const char *fmt, ...) printf_like(1, 2);
static int run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

/* A process that waits for the end of this one, and cleans up. */
static void leave_a_cleaner(void)
{
	int p[2];
	char c;

	check(pipe2(p, O_CLOEXEC) == 0);
	if (fork() != 0) {
		(void)close(p[0]);
		return;
	}
	(void)close(p[1]);
	(void)setsid();
	while (read(p[0], &c, 1) < 0 && errno == EINTR)
		;
	(void)run("ip netns del %s; ip netns del %s", pod_name, node_name);
	_exit(0);
}

void pod_net_make(void)
{
	int pid = (int)getpid();

	(void)snprintf(pod_name, sizeof(pod_name), "husk-test-%d-pod", pid);
	(void)snprintf(node_name, sizeof(node_name), "husk-test-%d-node", pid);
	(void)snprintf(pod_path, sizeof(pod_path), "/run/netns/%s", pod_name);
	(void)snprintf(node_path, sizeof(node_path), "/run/netns/%s", node_name);
	leave_a_cleaner();
	check(run("set -e; ip netns add %s; ip netns add %s; n='ip -n %s' p='ip -n %s'\n"
		  "$n link set lo up; $n link add br0 type bridge; $n link set br0 up\n"
		  "$n addr add " NODE4 "/24 dev br0; $n addr add " NODE6 "/64 dev br0 nodad\n"
		  "$n link add v0 mtu %d type veth peer name eth0 mtu %d address " POD_MAC
		  " netns %s\n"
		  "$n link set v0 master br0 up; $p link set lo up; $p link set eth0 up\n"
		  "$p addr add " POD4 "/24 brd + dev eth0; $p addr add " POD6 "/64 dev eth0 nodad\n"
		  "$p route add default via " NODE4 "; $p route add default via " NODE6 "\n"
		  "$p route add 203.0.113.0/24 via 198.51.100.1 dev eth0 onlink metric 77\n"
		  "$p route add blackhole 198.18.0.0/15\n"
		  "$p neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent dev eth0\n",
		  pod_name, node_name, node_name, pod_name, POD_MTU, POD_MTU, pod_name) == 0);
}

const char *pod_net_path(void)
{
	return pod_path;
}

const char *node_net_path(void)
{
	return node_path;
}

int pod_net_ip(const char *fmt, ...)
{
	char args[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	return run("ip -n %s %s", pod_name, args);
}

int node_ping(const char *ip)
{
	return run("ip netns exec %s busybox ping%s -c 1 -W 5 %s >/dev/null", node_name,
		   strchr(ip, ':') ? "6" : "", ip);
}

/* ---- in a child in the node's namespace ---- */

static pid_t fork_on_node(void)
{
	pid_t pid = fork();
	int fd;

	check(pid >= 0);
	if (pid != 0)
		return pid;
	fd = open(node_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		_exit(3);
	alarm(60);
	return 0;
}

static int wait_for(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid);
	if (status != 0)
		fprintf(stderr, "  on the node: status %#x\n", (unsigned)status);
	return status;
}

static int dial(const char *ip, unsigned port)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	bool v6 = inet_pton(AF_INET6, ip, &a6.sin6_addr) == 1;
	int s = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)inet_pton(AF_INET, ip, &a4.sin_addr);
	if (connect(s, v6 ? (void *)&a6 : (void *)&a4, v6 ? sizeof(a6) : sizeof(a4)) < 0) {
		fprintf(stderr, "  connect %s: %s\n", ip, strerror(errno));
		_exit(4);
	}
	return s;
}

static void send_pattern(int s, uint64_t n)
{
	static uint8_t chunk[CHUNK];

	for (uint64_t done = 0; done < n; done += CHUNK) {
		size_t k = MIN_OF(n - done, sizeof(chunk));

		pattern_fill(chunk, k, done, 5);
		if (write_all(s, chunk, k) < 0)
			_exit(5);
	}
	(void)shutdown(s, SHUT_WR);
	_exit(0);
}

int node_echo(const char *ip, unsigned port, uint64_t n)
{
	static uint8_t got[CHUNK], want[CHUNK];
	pid_t pid = fork_on_node();
	socklen_t len = sizeof(int);
	uint64_t done = 0;
	int s, mss;
	ssize_t k;

	if (pid != 0)
		return wait_for(pid);
	s = dial(ip, port);
	if (getsockopt(s, IPPROTO_TCP, TCP_MAXSEG, &mss, &len) < 0 || mss > POD_MTU - TCP_HEADERS4)
		_exit(6);
	if (fork() == 0)
		send_pattern(s, n);
	while (done < n && (k = read(s, got, MIN_OF(n - done, sizeof(got)))) > 0) {
		pattern_fill(want, (size_t)k, done, 5);
		if (memcmp(got, want, (size_t)k) != 0)
			_exit(7);
		done += (uint64_t)k;
	}
	_exit(done == n ? 0 : 8);
}

pid_t node_serve(unsigned port, uint64_t n)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	static uint8_t got[CHUNK];
	uint64_t done = 0;
	int s, c, ready[2];
	ssize_t k;
	pid_t pid;

	check(pipe2(ready, O_CLOEXEC) == 0);
	pid = fork_on_node();
	if (pid != 0) {
		(void)close(ready[1]);
		check(read(ready[0], got, 1) == 1);
		(void)close(ready[0]);
		return pid;
	}
	s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s, (void *)&a, sizeof(a)) < 0 || listen(s, 1) < 0 || write(ready[1], "", 1) != 1)
		_exit(9);
	c = accept(s, NULL, NULL);
	while ((k = read(c, got, sizeof(got))) > 0)
		done += (uint64_t)k;
	_exit(k == 0 && done == n ? 0 : 10);
}

int node_served(pid_t server)
{
	return wait_for(server);
}
