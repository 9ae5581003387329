/*
 * The guest of test_vmm_boot: a static /init without libraries of ours. It opens the agent channel
 * (CID 2, port 1024) and serves text commands on it, one line each; the answer is one line, "ok
 *..." or "err NUMBER".
 *
 *	part N FIRST SECTORS | unpart N		BLKPG on /dev/vda
 *	read PATH OFF LEN | fetch PATH OFF LEN	-> ok HASH MICROSECONDS (fetch: no hash)
 *	write PATH OFF LEN SEED			pattern, with O_DIRECT
 *	discard PATH OFF LEN | zero PATH OFF LEN
 *	mount PATH TYPE ro|rw | umount | cat NAME | put NAME LEN SEED
 *	listen PORT echo|sink|drop|source LEN	one process per connection
 *	connect PORT				to the host; expected to fail
 *	net ADDR4 ADDR6 MTU			eth0, /24 and /64, and lo: addresses, up
 *	carrier					-> ok 0|1
 *	tcp PORT echo|sink|drop|source LEN	as listen, on all addresses
 *	rng | reboot | panic
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/ipv6.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "test/lib/vmm_pattern.h"

#define CHUNK (256 * 1024)

static uint8_t *chunk; /* CHUNK bytes, page-aligned */

static uint64_t micros(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int vsock(unsigned cid, unsigned port, int listening)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = listening ? bind(fd, (void *)&a, sizeof(a)) : connect(fd, (void *)&a, sizeof(a));

	if (r == 0 && listening)
		r = listen(fd, 512);
	if (r < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int blkpg(int op, int n, long long first, long long sectors)
{
	struct blkpg_partition p = { .pno = n, .start = first * 512, .length = sectors * 512 };
	struct blkpg_ioctl_arg a = { .op = op, .datalen = sizeof(p), .data = &p };
	int fd = open("/dev/vda", O_RDONLY | O_CLOEXEC);
	int r = ioctl(fd, BLKPG, &a) < 0 ? -errno : 0;

	close(fd);
	return r;
}

/* hash NULL: only read, for measuring */
static int do_read(const char *path, uint64_t off, uint64_t len, uint64_t *hash)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | (off % 512 || len % 512 ? 0 : O_DIRECT));
	int r;

	if (fd < 0)
		return -errno;
	r = 0;
	while (len > 0) {
		ssize_t n = pread(fd, chunk, len < CHUNK ? len : CHUNK, (off_t)off);

		if (n <= 0) {
			r = n < 0 ? -errno : -ENODATA;
			break;
		}
		if (hash)
			*hash = hash_add(*hash, chunk, (size_t)n);
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	close(fd);
	return r;
}

static int do_write(const char *path, uint64_t off, uint64_t len, unsigned seed, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
	int r;
	uint64_t done;

	if (fd < 0)
		return -errno;
	r = 0;
	done = 0;
	while (done < len) {
		size_t k = len - done < CHUNK ? len - done : CHUNK;
		ssize_t n;

		pattern_fill(chunk, k, done, seed);
		n = pwrite(fd, chunk, k, (off_t)(off + done));
		if (n <= 0) {
			r = n < 0 ? -errno : -EIO;
			break;
		}
		done += (uint64_t)n;
	}
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int range_ioctl(const char *path, unsigned long op, uint64_t off, uint64_t len)
{
	uint64_t range[2] = { off, len };
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, op, range) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static void send_all(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const uint8_t *)data + done, len - done);

		if (n < 0)
			return;
		done += (size_t)n;
	}
}

/* One connection: echo until the end; or swallow it all and answer "LEN HASH" (drop: without hash);
 * or send a pattern. */
static void serve(int fd, const char *mode, uint64_t len)
{
	uint64_t total = 0, hash = HASH_START;
	ssize_t n;

	if (!strcmp(mode, "source")) {
		for (uint64_t done = 0; done < len;) {
			size_t k = len - done < CHUNK ? len - done : CHUNK;

			pattern_fill(chunk, k, done, 7);
			send_all(fd, chunk, k);
			done += k;
		}
		shutdown(fd, SHUT_WR);
		while (read(fd, chunk, CHUNK) > 0)
			;
		return;
	}
	while ((n = read(fd, chunk, CHUNK)) > 0) {
		total += (uint64_t)n;
		if (!strcmp(mode, "echo"))
			send_all(fd, chunk, (size_t)n);
		else if (!strcmp(mode, "sink"))
			hash = hash_add(hash, chunk, (size_t)n);
	}
	if (strcmp(mode, "echo") != 0) {
		char line[64];
		int k = snprintf(line, sizeof(line), "%llu %llx\n", (unsigned long long)total,
				 (unsigned long long)hash);

		send_all(fd, line, (size_t)k);
	}
}

static int tcp(unsigned port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (void *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return -errno;
	return fd;
}

/* One process per connection. */
static int accept_on(int fd, const char *mode, uint64_t len)
{
	if (fd < 0)
		return fd;
	if (fork() == 0) {
		for (;;) {
			int c = accept(fd, NULL, NULL);

			if (c >= 0 && fork() == 0) {
				serve(c, mode, len);
				_exit(0);
			}
			close(c);
		}
	}
	close(fd);
	return 0;
}

static int put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

static int bring_up(int s, const char *name)
{
	struct ifreq q = { .ifr_flags = IFF_UP };

	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	return ioctl(s, SIOCSIFFLAGS, &q) < 0 ? -errno : 0;
}

static int do_net(const char *addr4, const char *addr6, int mtu)
{
	struct sockaddr_in a = { .sin_family = AF_INET }, mask = { .sin_family = AF_INET };
	struct in6_ifreq six = { .ifr6_prefixlen = 64 };
	struct ifreq q = { .ifr_name = "eth0" };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
	int s6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	r = put_text("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0");
	if (r == 0)
		r = bring_up(s, "lo");
	q.ifr_mtu = mtu;
	if (r == 0 && ioctl(s, SIOCSIFMTU, &q) < 0)
		r = -errno;
	if (r == 0)
		r = bring_up(s, "eth0");
	inet_pton(AF_INET, addr4, &a.sin_addr);
	mask.sin_addr.s_addr = htonl(0xffffff00);
	memcpy(&q.ifr_addr, &a, sizeof(a));
	if (r == 0 && ioctl(s, SIOCSIFADDR, &q) < 0)
		r = -errno;
	memcpy(&q.ifr_netmask, &mask, sizeof(mask));
	if (r == 0 && ioctl(s, SIOCSIFNETMASK, &q) < 0)
		r = -errno;
	six.ifr6_ifindex = (int)if_nametoindex("eth0");
	inet_pton(AF_INET6, addr6, &six.ifr6_addr);
	if (r == 0 && ioctl(s6, SIOCSIFADDR, &six) < 0 && errno != EEXIST)
		r = -errno;
	close(s);
	close(s6);
	return r;
}

static int do_carrier(char *out, size_t size)
{
	struct ifreq q = { .ifr_name = "eth0" };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = ioctl(s, SIOCGIFFLAGS, &q) < 0 ? -errno : 0;

	snprintf(out, size, " %d", q.ifr_flags & IFF_RUNNING ? 1 : 0);
	close(s);
	return r;
}

static int command(char *line, char *out, size_t size)
{
	char verb[16] = "", s1[64] = "", s2[64] = "", s3[64] = "";
	unsigned long long a = 0, b = 0, c = 0;
	uint64_t hash = HASH_START;
	bool fetch;

	sscanf(line, "%15s", verb);
	if (!strcmp(verb, "part") && sscanf(line, "%*s %llu %llu %llu", &a, &b, &c) == 3)
		return blkpg(BLKPG_ADD_PARTITION, (int)a, (long long)b, (long long)c);
	if (!strcmp(verb, "unpart") && sscanf(line, "%*s %llu", &a) == 1)
		return blkpg(BLKPG_DEL_PARTITION, (int)a, 0, 0);
	fetch = !strcmp(verb, "fetch");
	if ((fetch || !strcmp(verb, "read")) &&
	    sscanf(line, "%*s %63s %llu %llu", s1, &a, &b) == 3) {
		uint64_t begin = micros();
		int r = do_read(s1, a, b, fetch ? NULL : &hash);

		snprintf(out, size, " %llx %llu", (unsigned long long)hash,
			 (unsigned long long)(micros() - begin));
		return r;
	}
	if (!strcmp(verb, "write") && sscanf(line, "%*s %63s %llu %llu %llu", s1, &a, &b, &c) == 4)
		return do_write(s1, a, b, (unsigned)c, O_DIRECT);
	if (!strcmp(verb, "put") && sscanf(line, "%*s %63s %llu %llu", s1, &a, &b) == 3) {
		snprintf(s2, sizeof(s2), "/mnt/%.50s", s1);
		return do_write(s2, 0, a, (unsigned)b, O_CREAT);
	}
	if (!strcmp(verb, "discard") && sscanf(line, "%*s %63s %llu %llu", s1, &a, &b) == 3)
		return range_ioctl(s1, BLKDISCARD, a, b);
	if (!strcmp(verb, "zero") && sscanf(line, "%*s %63s %llu %llu", s1, &a, &b) == 3)
		return range_ioctl(s1, BLKZEROOUT, a, b);
	if (!strcmp(verb, "mount") && sscanf(line, "%*s %63s %63s %63s", s1, s2, s3) == 3)
		return mount(s1, "/mnt", s2, s3[1] == 'o' ? MS_RDONLY : 0, NULL) < 0 ? -errno : 0;
	if (!strcmp(verb, "umount"))
		return umount("/mnt") < 0 ? -errno : 0;
	if (!strcmp(verb, "cat") && sscanf(line, "%*s %63s", s1) == 1) {
		ssize_t n;
		int fd;

		snprintf(s2, sizeof(s2), "/mnt/%.50s", s1);
		fd = open(s2, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		out[0] = ' ';
		n = read(fd, out + 1, size - 2);
		out[n > 0 ? n + 1 : 1] = '\0';
		out[strcspn(out, "\n")] = '\0';
		close(fd);
		return 0;
	}
	if (!strcmp(verb, "listen") && sscanf(line, "%*s %llu %63s %llu", &a, s1, &b) >= 2)
		return accept_on(vsock(VMADDR_CID_ANY, (unsigned)a, 1), s1, b);
	if (!strcmp(verb, "tcp") && sscanf(line, "%*s %llu %63s %llu", &a, s1, &b) >= 2)
		return accept_on(tcp((unsigned)a), s1, b);
	if (!strcmp(verb, "net") && sscanf(line, "%*s %63s %63s %llu", s1, s2, &a) == 3)
		return do_net(s1, s2, (int)a);
	if (!strcmp(verb, "carrier"))
		return do_carrier(out, size);
	if (!strcmp(verb, "connect") && sscanf(line, "%*s %llu", &a) == 1) {
		int fd = vsock(VMADDR_CID_HOST, (unsigned)a, 0);

		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : 0;
	}
	if (!strcmp(verb, "rng")) {
		unsigned char v[8];

		if (getrandom(v, sizeof(v), 0) != sizeof(v))
			return -errno;
		snprintf(out, size, " %02x%02x%02x%02x", v[0], v[1], v[2], v[3]);
		return 0;
	}
	if (!strcmp(verb, "reboot"))
		reboot(RB_AUTOBOOT);
	if (!strcmp(verb, "panic"))
		_exit(0); /* of PID 1 */
	return -ENOSYS;
}

int main(void)
{
	char line[256];
	FILE *f;
	int fd;

	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	mkdir("/dev", 0755);
	mkdir("/mnt", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	chunk = aligned_alloc(4096, CHUNK);
	fd = vsock(VMADDR_CID_HOST, 1024, 0);
	f = fd < 0 ? NULL : fdopen(fd, "r+");
	if (!f || !chunk) {
		printf("vmm_guest: no agent channel: %s\n", strerror(-fd));
		return 1;
	}
	setvbuf(f, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), f)) {
		char out[512] = "";
		int r = command(line, out, sizeof(out));
		char answer[600];
		int n;

		if (r < 0)
			snprintf(out, sizeof(out), "err %d\n", -r);
		n = snprintf(answer, sizeof(answer), "%s%s", r < 0 ? "" : "ok", out);
		if (r == 0)
			answer[n++] = '\n';
		send_all(fd, answer, (size_t)n);
	}
	return 0;
}
