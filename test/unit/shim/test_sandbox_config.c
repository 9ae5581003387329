/* What a pod's configuration means for its VM and for the guest. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/util.h"
#include "shim/pod/sandbox_config.h"

static struct pb_arena arena;

static int set_up(void **state)
{
	pb_arena_init(&arena, MIB);
	return 0;
}

static int tear_down(void **state)
{
	pb_arena_fini(&arena);
	return 0;
}

static void check_size(const Shim__Options *o, const Cri__PodSandboxConfig *cfg, uint32_t vcpus,
		       uint32_t mib)
{
	uint32_t v = 0, m = 0;

	sandbox_config_size(o, cfg, &v, &m);
	assert_int_equal(v, vcpus);
	assert_int_equal(m, mib);
}

static void test_size(void **state)
{
	Cri__LinuxContainerResources res = CRI__LINUX_CONTAINER_RESOURCES__INIT, over = res;
	Cri__LinuxPodSandboxConfig lx = CRI__LINUX_POD_SANDBOX_CONFIG__INIT;
	Cri__PodSandboxConfig cfg = CRI__POD_SANDBOX_CONFIG__INIT;
	Shim__Options o = SHIM__OPTIONS__INIT;

	check_size(&o, NULL, SANDBOX_VCPUS_DEFAULT, SANDBOX_MEMORY_DEFAULT_MIB);
	check_size(&o, &cfg, SANDBOX_VCPUS_DEFAULT, SANDBOX_MEMORY_DEFAULT_MIB);
	o.vcpus = 3;
	o.memory_mib = 500;
	check_size(&o, &cfg, 3, 500);
	cfg.linux = &lx;
	check_size(&o, &cfg, 3, 500);
	/* The pod's own word: a byte more than 512 MiB, and two and a half CPUs. */
	lx.resources = &res;
	check_size(&o, &cfg, 3, 500);
	res.memory_limit_in_bytes = (int64_t)(512 * MIB) + 1;
	res.cpu_quota = 250000;
	res.cpu_period = 100000;
	check_size(&o, &cfg, 3, 513 + SANDBOX_OVERHEAD_MIB);
	lx.overhead = &over;
	over.memory_limit_in_bytes = (int64_t)(10 * MIB);
	check_size(&o, &cfg, 3, 523);
	/* Never less than a guest needs, never more than the monitor takes. */
	res.memory_limit_in_bytes = 1;
	check_size(&o, &cfg, 3, SANDBOX_MEMORY_MIN_MIB);
	res.memory_limit_in_bytes = INT64_MAX;
	res.cpu_quota = INT64_MAX;
	res.cpu_period = 1;
	check_size(&o, &cfg, VM_VCPUS_MAX, VM_MEMORY_MIB_MAX);
}

static Agent__CreateSandboxRequest *request(const Cri__PodSandboxConfig *cfg, const char *hostname)
{
	Agent__CreateSandboxRequest *req = NULL;
	struct err err = { 0 };

	assert_ok(sandbox_config_request(&arena, "pod-1", cfg, hostname, &req, &err), &err);
	return req;
}

static void test_request(void **state)
{
	char *servers[] = { (char *)"10.0.0.10", (char *)"fd00::a" };
	char *searches[] = { (char *)"a.local", (char *)"b.local" };
	char *options[] = { (char *)"ndots:5" };
	Cri__LinuxPodSandboxConfig__SysctlsEntry s1 =
		CRI__LINUX_POD_SANDBOX_CONFIG__SYSCTLS_ENTRY__INIT;
	Cri__LinuxPodSandboxConfig__SysctlsEntry *sysctls[] = { &s1 };
	Cri__LinuxPodSandboxConfig lx = CRI__LINUX_POD_SANDBOX_CONFIG__INIT;
	Cri__PodSandboxConfig cfg = CRI__POD_SANDBOX_CONFIG__INIT;
	Cri__DNSConfig dns = CRI__DNSCONFIG__INIT;
	Agent__CreateSandboxRequest *req;

	s1.key = (char *)"kernel.shm_rmid_forced";
	s1.value = (char *)"1";
	lx.sysctls = sysctls;
	lx.n_sysctls = 1;
	cfg.linux = &lx;
	cfg.dns_config = &dns;
	req = request(&cfg, "web");
	assert_string_equal(req->id, "pod-1");
	assert_string_equal(req->hostname, "web");
	assert_string_equal(req->hosts,
			    "127.0.0.1\tlocalhost\n"
			    "::1\tlocalhost ip6-localhost ip6-loopback\n"
			    "127.0.1.1\tweb\n");
	assert_int_equal(req->n_sysctls, 1);
	assert_string_equal(req->sysctls[0]->key, "kernel.shm_rmid_forced");
	assert_string_equal(req->sysctls[0]->value, "1");
	/* No server at all is what was asked for, and not the host's file. */
	assert_string_equal(req->resolv_conf, "\n");
	dns.servers = servers;
	dns.n_servers = 2;
	dns.searches = searches;
	dns.n_searches = 2;
	dns.options = options;
	dns.n_options = 1;
	req = request(&cfg, "");
	assert_string_equal(req->resolv_conf,
			    "search a.local b.local\n"
			    "nameserver 10.0.0.10\n"
			    "nameserver fd00::a\n"
			    "options ndots:5\n");
	assert_null(strstr(req->hosts, "127.0.1.1"));
}

/* Without a word about DNS the pod has the host's file. */
static void test_host_dns(void **state)
{
	cleanup_free char *host = NULL;
	const Agent__CreateSandboxRequest *req = request(NULL, "h");

	if (read_file("/etc/resolv.conf", 64 * KIB, &host, NULL, NULL) == 0)
		assert_string_equal(req->resolv_conf, host);
	else
		assert_string_equal(req->resolv_conf, "\n");
}

static void test_too_large(void **state)
{
	Agent__CreateSandboxRequest *req = NULL;
	struct pb_arena small;
	struct err err = { 0 };

	pb_arena_init(&small, 100);
	assert_true(sandbox_config_request(&small, "pod-1", NULL, "h", &req, &err) < 0);
	assert_null(req);
	pb_arena_fini(&small);
}

static void check_score(const Cri__PodSandboxConfig *cfg, bool fixed, int want)
{
	int score = 1;

	assert_int_equal(sandbox_config_oom_score(cfg, &score), fixed);
	assert_int_equal(score, want);
}

static void test_oom_score(void **state)
{
	Cri__LinuxContainerResources res = CRI__LINUX_CONTAINER_RESOURCES__INIT;
	Cri__LinuxPodSandboxConfig lx = CRI__LINUX_POD_SANDBOX_CONFIG__INIT;
	Cri__PodSandboxConfig cfg = CRI__POD_SANDBOX_CONFIG__INIT;

	check_score(NULL, false, 0);
	check_score(&cfg, false, 0);
	cfg.linux = &lx;
	check_score(&cfg, false, 0);
	lx.cgroup_parent = (char *)"/kubepods/besteffort/pod1";
	check_score(&cfg, false, 1000);
	lx.cgroup_parent = (char *)"kubepods-burstable-pod1.slice";
	check_score(&cfg, false, 999);
	lx.resources = &res;
	check_score(&cfg, false, 999);
	res.oom_score_adj = -500;
	check_score(&cfg, true, -500);
	res.oom_score_adj = -1000;
	check_score(&cfg, true, -997);
	res.oom_score_adj = INT64_MAX;
	check_score(&cfg, true, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_size, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_oom_score, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_request, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_host_dns, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_large, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
