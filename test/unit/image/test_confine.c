/* The walls of the fetch process, from the inside: each attempt is made by a process that has
 * confined itself as the worker does, and has been taken over since. */
#include "test/lib/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "image/worker/confine.h"
#include "image/worker/confine_internal.h"

#define OWN_UID 1879048200u
#define KILLED 1000 /* by the filter */
#define FAILED 200  /* the confinement itself */

/* What `attempt` gives when it is done inside: 0, a positive errno, or KILLED. */
static int inside(int (*attempt)(void))
{
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		const struct confine_limits l = {
			.memory = 1 * GIB, .file = 1 * MIB, .cpu_s = 10, .threads = 16
		};
		struct err err = { 0 };

		if (geteuid() == 0)
			confine_set_uid(OWN_UID);
		confine_fetch_prepare();
		if (confine_common(&l, &err) < 0 || confine_fetch(&err) < 0) {
			(void)fprintf(stderr, "%s\n", err_text(&err));
			_exit(FAILED);
		}
		_exit(attempt());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGSYS);
		return KILLED;
	}
	assert_int_not_equal(WEXITSTATUS(status), FAILED);
	return WEXITSTATUS(status);
}

static int code_of(long r)
{
	return r < 0 ? errno : 0;
}

/* ---- what it may ---- */

static void *confine_on_thread(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

static int make_thread(void)
{
	pthread_t t;
	int seen = 0, r = pthread_create(&t, NULL, confine_on_thread, &seen);

	if (r == 0)
		r = pthread_join(t, NULL);
	return r ? r : seen ? 0 : EIO;
}

static int resolve_localhost(void)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int r = getaddrinfo("localhost", "443", &hints, &list);

	if (r == 0)
		freeaddrinfo(list);
	return r ? 100 - r : 0;
}

static int open_connections(void)
{
	int on = 1, tcp = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_UDP);
	int four = socket(AF_INET, SOCK_STREAM, 0), pair[2];

	if (tcp < 0 || udp < 0 || four < 0)
		return errno;
	if (ioctl(four, FIONBIO, &on) < 0 ||
	    setsockopt(four, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return errno;
	return code_of(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}

static int read_etc(void)
{
	return code_of(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static void what_fetch_needs_is_there(void **state)
{
	assert_int_equal(inside(make_thread), 0);
	assert_int_equal(inside(resolve_localhost), 0);
	assert_int_equal(inside(open_connections), 0);
	assert_int_equal(inside(read_etc), 0);
}

/* ---- processes ---- */

static int run_program(void)
{
	char *const argv[] = { (char *)"true", NULL };

	return code_of(execve("/bin/true", argv, NULL));
}

/* Whoever comes out of a clone that should not be ends at once. */
static int clone_with(unsigned long flags)
{
	long r = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);

	if (r == 0)
		_exit(0);
	return code_of(r);
}

static int fork_child(void)
{
	return clone_with(SIGCHLD);
}

static int clone_user_and_net(void)
{
	return clone_with(CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD);
}

static int clone_thread_in_namespace(void)
{
	return clone_with(CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_NEWNET);
}

static int clone_shared_memory(void)
{
	return clone_with(CLONE_VM | CLONE_VFORK | SIGCHLD);
}

static int clone3_user(void)
{
	struct {
		uint64_t flags, rest[10];
	} a = { .flags = CLONE_NEWUSER };
	long r = syscall(SYS_clone3, &a, sizeof(a));

	if (r == 0)
		_exit(0);
	return code_of(r);
}

static int unshare_user(void)
{
	return code_of(unshare(CLONE_NEWUSER));
}

static void *confine_on_waiting_thread(void *arg)
{
	for (;;)
		(void)sleep(10);
	return arg;
}

static int make_many_threads(void)
{
	for (int k = 0; k < 64; k++) {
		pthread_t t;
		int r = pthread_create(&t, NULL, confine_on_waiting_thread, NULL);

		if (r)
			return r;
	}
	return 0;
}

static void it_has_no_other_processes(void **state)
{
	assert_int_equal(inside(run_program), KILLED);
	assert_int_equal(inside(fork_child), ENOSYS);
	assert_int_equal(inside(clone_user_and_net), ENOSYS);
	assert_int_equal(inside(clone_thread_in_namespace), ENOSYS);
	assert_int_equal(inside(clone_shared_memory), ENOSYS);
	assert_int_equal(inside(clone3_user), ENOSYS);
	assert_int_equal(inside(unshare_user), KILLED);
	if (geteuid() == 0)
		assert_int_equal(inside(make_many_threads), EAGAIN);
}

static int kill_parent(void)
{
	return code_of(kill(getppid(), 0));
}

static int tgkill_parent(void)
{
	return code_of(syscall(SYS_tgkill, getppid(), getppid(), 0));
}

static int queue_signal(void)
{
	siginfo_t info = { .si_code = SI_QUEUE };

	return code_of(syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info));
}

/* SIGIO to a process that is named by F_SETOWN. */
static int own_descriptor(void)
{
	return code_of(fcntl(0, F_SETOWN, getppid()));
}

static void it_sends_no_signals(void **state)
{
	assert_int_equal(inside(kill_parent), KILLED);
	assert_int_equal(inside(tgkill_parent), ENOSYS);
	assert_int_equal(inside(queue_signal), KILLED);
	assert_int_equal(inside(own_descriptor), ENOSYS);
}

static int is_own_user(void)
{
	return getuid() == OWN_UID && geteuid() == OWN_UID && getgid() == OWN_UID ? 0 : 1;
}

static void it_has_a_user_of_its_own(void **state)
{
	if (geteuid() != 0) {
		print_message("not root: a user cannot be changed here\n");
		skip();
	}
	assert_int_equal(inside(is_own_user), 0);
}

/* ---- the kernel's sockets ---- */

static int family;

static int open_family(void)
{
	return code_of(socket(family, SOCK_RAW, 0));
}

static int open_packet_stream(void)
{
	return code_of(socket(AF_INET, SOCK_STREAM, 262 /* MPTCP */));
}

static int open_raw(void)
{
	return code_of(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int pair_of_vsock(void)
{
	int pair[2];

	return code_of(socketpair(AF_TIPC, SOCK_STREAM, 0, pair));
}

static int listen_on_port(void)
{
	const struct sockaddr_in a = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		return errno;
	return code_of(listen(fd, 1));
}

static int use_kernel_tls(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return code_of(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3));
}

static void only_tcp_and_udp(void **state)
{
	for (family = 0; family < 50; family++)
		if (family != AF_INET && family != AF_INET6)
			assert_int_equal(inside(open_family), EAFNOSUPPORT);
	assert_int_equal(inside(open_packet_stream), ENOSYS);
	assert_int_equal(inside(open_raw), ENOSYS);
	assert_int_equal(inside(pair_of_vsock), ENOSYS);
	assert_int_equal(inside(listen_on_port), ENOSYS);
	assert_int_equal(inside(use_kernel_tls), ENOSYS);
}

/* ---- memory and files ---- */

static int map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? errno
		       : 0;
}

static int make_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? EIO : code_of(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int become_code_by_personality(void)
{
	return code_of(syscall(SYS_personality, 0x0400000 /* READ_IMPLIES_EXEC */));
}

static void memory_is_data(void **state)
{
	assert_int_equal(inside(map_code), ENOSYS);
	assert_int_equal(inside(make_code), ENOSYS);
	assert_int_equal(inside(become_code_by_personality), ENOSYS);
}

static int write_tmp(void)
{
	return code_of(open("/tmp", O_TMPFILE | O_RDWR, 0600));
}

static int create_tmp(void)
{
	return code_of(open("/tmp/husk-confine-test", O_CREAT | O_WRONLY, 0600));
}

static int truncate_null(void)
{
	return code_of(truncate("/dev/null", 0));
}

static int read_proc(void)
{
	return code_of(open("/proc/self/maps", O_RDONLY));
}

static int ioctl_of_terminal(void)
{
	return code_of(ioctl(2, TIOCSTI, "x"));
}

static void files_are_read_below_a_few_places(void **state)
{
	assert_int_equal(inside(write_tmp), ENOSYS);
	assert_int_equal(inside(create_tmp), ENOSYS);
	assert_int_equal(inside(truncate_null), ENOSYS);
	assert_int_equal(inside(ioctl_of_terminal), ENOSYS);
	if (confine_landlock_abi() == 0) {
		print_message("no Landlock in this kernel: paths are not looked at\n");
		skip();
	}
	assert_int_equal(inside(read_proc), EACCES);
}

static int mount_something(void)
{
	return code_of(syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, NULL));
}

static int configure_mount(void)
{
	return code_of(syscall(SYS_fsconfig, -1, 0, NULL, NULL, 0));
}

static int load_bpf(void)
{
	return code_of(syscall(SYS_bpf, 0, NULL, 0));
}

static int set_up_io_uring(void)
{
	return code_of(syscall(SYS_io_uring_setup, 1, NULL));
}

static int use_memfd(void)
{
	return code_of(memfd_create("x", 0));
}

static void the_rest_of_the_kernel_is_not_there(void **state)
{
	assert_int_equal(inside(mount_something), KILLED);
	assert_int_equal(inside(configure_mount), KILLED);
	assert_int_equal(inside(load_bpf), KILLED);
	assert_int_equal(inside(set_up_io_uring), KILLED);
	assert_int_equal(inside(use_memfd), ENOSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fetch_needs_is_there),
		cmocka_unit_test(it_has_no_other_processes),
		cmocka_unit_test(it_sends_no_signals),
		cmocka_unit_test(it_has_a_user_of_its_own),
		cmocka_unit_test(only_tcp_and_udp),
		cmocka_unit_test(memory_is_data),
		cmocka_unit_test(files_are_read_below_a_few_places),
		cmocka_unit_test(the_rest_of_the_kernel_is_not_there),
	};

	if (CONFINE_SANITIZED) {
		printf("1..0 # skipped: a sanitizer needs what the filters refuse\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
