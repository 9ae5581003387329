/*
 * The network of a real guest (vmm_guest.c): a tap in a network namespace of this process, attached
 * while the guest runs. Nothing leaves the namespace, which goes with this process. Needs root,
 * /dev/net/tun, and a kernel as test_vmm_boot does; HUSK_BACKEND chooses the backend (qemu).
 */
#include "test/lib/unit.h"
#include "test/lib/vmm_client.h"
#include "test/lib/vmm_pattern.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/process.h"
#include "base/util.h"

#define BOOT_SECONDS 60
#define HOST4 "192.0.2.1"
#define GUEST4 "192.0.2.2"
#define HOST6 "2001:db8::1"
#define GUEST6 "2001:db8::2"
#define TAP_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

static const char *backend, *kernel, *initramfs;
static struct vmm_client vm;
static unsigned next_port = 5000;

/* ---- the host's side ---- */

static int open_tap(short flags)
{
	struct ifreq q = { .ifr_name = "tap0", .ifr_flags = flags };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &q), 0);
	return fd;
}

static void set_up(const char *name, int mtu)
{
	struct ifreq q = { .ifr_mtu = mtu };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	if (mtu > 0)
		assert_int_equal(ioctl(s, SIOCSIFMTU, &q), 0);
	q.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, &q), 0);
	close(s);
}

/* tap0 with the host's addresses. */
static void configure_tap(int mtu)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct in6_ifreq six = { .ifr6_prefixlen = 64 };
	struct ifreq q = { .ifr_name = "tap0" };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int s6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int dad = open("/proc/sys/net/ipv6/conf/tap0/accept_dad", O_WRONLY | O_CLOEXEC);

	assert_int_equal(write(dad, "0", 1), 1);
	close(dad);
	set_up("tap0", mtu);
	inet_pton(AF_INET, HOST4, &a.sin_addr);
	memcpy(&q.ifr_addr, &a, sizeof(a));
	assert_int_equal(ioctl(s, SIOCSIFADDR, &q), 0);
	a.sin_addr.s_addr = htonl(0xffffff00);
	memcpy(&q.ifr_netmask, &a, sizeof(a));
	assert_int_equal(ioctl(s, SIOCSIFNETMASK, &q), 0);
	six.ifr6_ifindex = (int)if_nametoindex("tap0");
	inet_pton(AF_INET6, HOST6, &six.ifr6_addr);
	assert_int_equal(ioctl(s6, SIOCSIFADDR, &six), 0);
	close(s);
	close(s6);
}

/* As what removes a pod's namespace does, or an administrator. */
static void delete_tap(void)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} q = { .h = { .nlmsg_len = sizeof(q),
		       .nlmsg_type = RTM_DELLINK,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK } };
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
	} a;
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	q.i.ifi_index = (int)if_nametoindex("tap0");
	assert_int_equal(send(s, &q, sizeof(q), 0), sizeof(q));
	assert_true(recv(s, &a, sizeof(a), 0) >= (ssize_t)sizeof(a));
	assert_int_equal(a.e.error, 0);
	close(s);
}

static void attach(int mtu)
{
	int tap = open_tap(TAP_FLAGS);

	configure_tap(mtu);
	assert_int_equal(vmm_attach_tap(&vm, tap), 0);
	close(tap);
}

static void wait_carrier(bool want)
{
	char out[32] = "";

	for (int i = 0; i < 200; i++) {
		assert_int_equal(vmm_guest(&vm, out, sizeof(out), "carrier"), 0);
		if ((out[0] == '1') == want)
			return;
		(void)usleep(20000);
	}
	fail_msg("carrier is %s", out);
}

static void address(const char *text, unsigned port, struct sockaddr_storage *ret, socklen_t *len)
{
	struct sockaddr_in six4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };

	if (strchr(text, ':')) {
		inet_pton(AF_INET6, text, &six.sin6_addr);
		*len = sizeof(six);
		memcpy(ret, &six, sizeof(six));
	} else {
		inet_pton(AF_INET, text, &six4.sin_addr);
		*len = sizeof(six4);
		memcpy(ret, &six4, sizeof(six4));
	}
}

/* An echo request of `size` bytes, and its answer. */
static void ping(const char *to, size_t size)
{
	bool v6 = strchr(to, ':');
	static uint8_t out[2000], in[2100];
	struct sockaddr_storage a;
	socklen_t len;
	int s = v6 ? socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6)
		   : socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
	struct pollfd p = { .fd = s, .events = POLLIN };
	size_t skip = v6 ? 0 : 20;
	uint32_t sum = 0;

	assert_true(s >= 0);
	address(to, 0, &a, &len);
	pattern_fill(out, sizeof(out), 0, 3);
	memset(out, 0, 8);
	out[0] = v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
	for (size_t i = 0; i < size; i += 2)
		sum += (uint32_t)(out[i] | out[i + 1] << 8);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	if (!v6)
		memcpy(out + 2, &sum, 2);
	assert_int_equal(sendto(s, out, size, 0, (void *)&a, len), size);
	for (;;) {
		ssize_t n;

		if (poll(&p, 1, 10000) != 1)
			fail_msg("no answer from %s", to);
		n = recv(s, in, sizeof(in), 0);
		if (n == (ssize_t)(skip + size) &&
		    in[skip] == (v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY))
			break;
	}
	assert_memory_equal(in + skip + 8, out + 8, size - 8);
	close(s);
}

static int dial(const char *to, unsigned port)
{
	const struct linger at_once = { .l_onoff = 1 };
	struct sockaddr_storage a;
	socklen_t len;
	int s;

	address(to, port, &a, &len);
	s = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Nothing is left in the kernel after close(): a FIN that is sent again while there is no
	 * guest to answer makes an address "unreachable" that the next test asks for. */
	assert_int_equal(setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
	if (connect(s, (void *)&a, len) < 0)
		fail_msg("connect %s: %s", to, strerror(errno));
	return s;
}

static uint8_t chunk[256 * 1024], got[256 * 1024];

static void to_guest(const char *to, uint64_t total)
{
	unsigned port = next_port++;
	uint64_t hash = HASH_START, begin;
	char want[64], line[64];
	int s;

	assert_int_equal(vmm_guest(&vm, NULL, 0, "tcp %u sink 0", port), 0);
	s = dial(to, port);
	begin = now_mono_ns();
	for (uint64_t done = 0; done < total;) {
		size_t k = MIN_OF(total - done, sizeof(chunk));

		pattern_fill(chunk, k, done, 11);
		hash = hash_add(hash, chunk, k);
		assert_int_equal(write_all(s, chunk, k), 0);
		done += k;
	}
	shutdown(s, SHUT_WR);
	snprintf(want, sizeof(want), "%llu %llx\n", (unsigned long long)total,
		 (unsigned long long)hash);
	memset(line, 0, sizeof(line));
	assert_int_equal(recv(s, line, strlen(want), MSG_WAITALL), strlen(want));
	assert_string_equal(line, want);
	print_message("[ figure   ] to %s: %llu MB/s (hashed by the guest)\n", to,
		      (unsigned long long)(total * 1000 / (now_mono_ns() - begin)));
	close(s);
}

static void from_guest(const char *to, uint64_t total)
{
	unsigned port = next_port++;
	uint64_t done = 0, begin;
	ssize_t n;
	int s;

	assert_int_equal(
		vmm_guest(&vm, NULL, 0, "tcp %u source %llu", port, (unsigned long long)total), 0);
	s = dial(to, port);
	begin = now_mono_ns();
	while ((n = recv(s, got, sizeof(got), 0)) > 0) {
		pattern_fill(chunk, (size_t)n, done, 7);
		assert_memory_equal(got, chunk, (size_t)n);
		done += (uint64_t)n;
	}
	assert_int_equal(done, total);
	print_message("[ figure   ] from %s: %llu MB/s (pattern made by the guest)\n", to,
		      (unsigned long long)(total * 1000 / (now_mono_ns() - begin)));
	close(s);
}

/* ---- tests ---- */

static int start_vm(void **state)
{
	/* The monitor stays outside: a tap works wherever its namespace is. */
	vmm_start(&vm, backend, kernel, initramfs);
	assert_int_equal(vmm_boot(&vm, 1, 256, "", false), 0);
	vmm_wait_connected(&vm, BOOT_SECONDS);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	set_up("lo", 0);
	return 0;
}

static int stop_vm(void **state)
{
	assert_int_equal(vmm_stop(&vm), 0);
	return 0;
}

static void test_wrong_descriptors(void **state)
{
	int tap = open_tap(IFF_TAP | IFF_NO_PI), p[2];

	assert_int_equal(vmm_attach_tap(&vm, tap), EINVAL);
	assert_text(vm.message, "IFF_VNET_HDR");
	close(tap);
	tap = open_tap(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
	assert_int_equal(vmm_attach_tap(&vm, tap), EINVAL);
	close(tap);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(vmm_attach_tap(&vm, p[0]), EINVAL);
	close(p[0]);
	close(p[1]);
	assert_int_equal(vmm_detach_tap(&vm), 0);
}

static void test_attach(void **state)
{
	assert_int_equal(vmm_guest(&vm, NULL, 0, "net %s %s 1500", GUEST4, GUEST6), 0);
	wait_carrier(false);
	attach(1500);
	wait_carrier(true);
	ping(GUEST4, 64);
	ping(GUEST6, 64);
	ping(GUEST4, 1480);
	ping(GUEST6, 1452);
}

static void test_streams(void **state)
{
	const uint64_t total = 40 * 1000 * 1000 + 12345;

	to_guest(GUEST4, total);
	from_guest(GUEST4, total);
	to_guest(GUEST6, total);
	from_guest(GUEST6, total);
}

/* The guest's MTU is its own side's to set: here it is smaller, and larger than the tap's. */
static void test_mtu(void **state)
{
	set_up("tap0", 1400);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "net %s %s 1400", GUEST4, GUEST6), 0);
	ping(GUEST4, 1380);
	ping(GUEST6, 1352);
	to_guest(GUEST4, 3000001);
	from_guest(GUEST6, 3000001);
	set_up("tap0", 9000);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "net %s %s 9000", GUEST4, GUEST6), 0);
	to_guest(GUEST6, 3000001);
	from_guest(GUEST4, 3000001);
}

static void test_tap_gone(void **state)
{
	delete_tap();
	wait_carrier(false);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "rng"), 0);
	attach(1500);
	wait_carrier(true);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "net %s %s 1500", GUEST4, GUEST6), 0);
	to_guest(GUEST4, 1000001);
	from_guest(GUEST6, 1000001);
	assert_int_equal(vmm_detach_tap(&vm), 0);
	wait_carrier(false);
	/* With its last descriptor the interface goes: nothing of it is left. */
	for (int i = 0; i < 100 && if_nametoindex("tap0") > 0; i++)
		(void)usleep(10000);
	assert_int_equal(if_nametoindex("tap0"), 0);
	attach(1500);
	wait_carrier(true);
	ping(GUEST4, 64);
}

/* A tap before the boot: the link is there from the start. Several CPUs. */
static void test_attached_before(void **state)
{
	assert_int_equal(vmm_detach_tap(&vm), 0);
	assert_int_equal(vmm_stop(&vm), 0);
	vmm_start(&vm, backend, kernel, initramfs);
	attach(1500);
	assert_int_equal(vmm_boot(&vm, 2, 256, "", false), 0);
	vmm_wait_connected(&vm, BOOT_SECONDS);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "net %s %s 1500", GUEST4, GUEST6), 0);
	wait_carrier(true);
	ping(GUEST6, 64);
	to_guest(GUEST6, 1000001);
	from_guest(GUEST4, 1000001);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_descriptors), cmocka_unit_test(test_attach),
		cmocka_unit_test(test_streams),		  cmocka_unit_test(test_mtu),
		cmocka_unit_test(test_tap_gone),	  cmocka_unit_test(test_attached_before),
	};
	cleanup_free char *k = NULL, *i = NULL;

	signal(SIGPIPE, SIG_IGN);
	if (program_path(getenv("HUSK_KERNEL"), "../share/husk/vmlinux", &k, NULL) < 0 ||
	    program_path(getenv("VMM_GUEST"), "vmm_guest.cpio", &i, NULL) < 0)
		return 1;
	kernel = k;
	initramfs = i;
	backend = getenv("HUSK_BACKEND") ? getenv("HUSK_BACKEND") : "qemu";
	if (access(kernel, R_OK) < 0) {
		printf("skipped: no guest kernel %s (make kernel, or HUSK_KERNEL)\n", kernel);
		return 77;
	}
	if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) < 0) {
		printf("skipped: needs root and /dev/net/tun\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, start_vm, stop_vm);
}
