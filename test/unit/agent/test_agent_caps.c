/* Identity and capabilities, taken on by a child and read from /proc. As root only: others cannot
 * become anybody. */
#include "test/lib/unit.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/proc/caps.h"
#include "base/util.h"

#define BIT(cap) (1ull << (cap))

static struct user user; /* large */

/* "CapEff:\t00000000a80425fb" of this process. */
static uint64_t status_set(const char *key)
{
	cleanup_free char *text = NULL;
	const char *at;

	if (read_file("/proc/self/status", 64 * KIB, &text, NULL, NULL) < 0 ||
	    !(at = strstr(text, key)))
		return ~0ull;
	return strtoull(at + strlen(key), NULL, 16);
}

struct want {
	uint64_t eff, prm, inh, amb, bnd;
	unsigned uid, gid;
	int n_groups;
};

/* In a child: 0, or the number of what is not as it should be. */
static int become(const Agent__Capabilities *caps, const struct want *w)
{
	const char *what = NULL;
	gid_t groups[8];
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0) {
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		return WEXITSTATUS(status);
	}
	if (caps_become(&user, caps, &what) < 0)
		_exit(1);
	if (getuid() != w->uid || geteuid() != w->uid || getgid() != w->gid || getegid() != w->gid)
		_exit(2);
	if (getgroups(8, groups) != w->n_groups || (w->n_groups > 0 && groups[0] != user.groups[0]))
		_exit(3);
	if (status_set("CapEff:") != w->eff || status_set("CapPrm:") != w->prm)
		_exit(4);
	if (status_set("CapInh:") != w->inh || status_set("CapAmb:") != w->amb)
		_exit(5);
	if (status_set("CapBnd:") != w->bnd)
		_exit(6);
	/* There is no way back. */
	if (w->uid != 0 && setuid(0) == 0)
		_exit(7);
	_exit(0);
}

static void test_nothing(void **state)
{
	const struct want w = { .uid = 1234, .gid = 77 };

	user = (struct user){ .uid = 1234, .gid = 77 };
	assert_int_equal(become(NULL, &w), 0);
}

static void test_some(void **state)
{
	Agent__Capabilities caps = AGENT__CAPABILITIES__INIT;
	struct want w = { .uid = 1000, .gid = 1000, .n_groups = 2 };

	user = (struct user){ .uid = 1000, .gid = 1000, .n_groups = 2, .groups = { 10, 20 } };
	w.bnd = caps.bounding = BIT(CAP_KILL) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_CHOWN);
	w.prm = caps.permitted = BIT(CAP_KILL) | BIT(CAP_NET_BIND_SERVICE);
	w.eff = caps.effective = BIT(CAP_KILL);
	w.inh = caps.inheritable = BIT(CAP_NET_BIND_SERVICE);
	w.amb = caps.ambient = BIT(CAP_NET_BIND_SERVICE);
	assert_int_equal(become(&caps, &w), 0);
}

static void test_root(void **state)
{
	Agent__Capabilities caps = AGENT__CAPABILITIES__INIT;
	struct want w = { 0 };

	user = (struct user){ 0 };
	w.bnd = w.prm = w.eff = BIT(CAP_CHOWN) | BIT(CAP_SETPCAP);
	caps.bounding = caps.permitted = caps.effective = w.eff;
	assert_int_equal(become(&caps, &w), 0);
}

/* More than it may hand on: refused, and the step is named. */
static void test_refused(void **state)
{
	Agent__Capabilities caps = AGENT__CAPABILITIES__INIT;
	const char *what = NULL;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		user = (struct user){ .uid = 5, .gid = 5 };
		caps.ambient = BIT(CAP_KILL); /* neither permitted nor inheritable */
		_exit(caps_become(&user, &caps, &what) == -EPERM && str_eq(what, "capabilities")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_some),
		cmocka_unit_test(test_root),
		cmocka_unit_test(test_refused),
	};

	if (geteuid() != 0) {
		printf("skipped: needs root\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
