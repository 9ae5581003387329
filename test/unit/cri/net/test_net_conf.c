/* Configurations and what plug-ins are told: what is taken, what is refused and how it is said. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "cri/net/conf.h"
#include "cri/net/json.h"
#include "cri/net/pod.h"

#define PLUGIN "\"plugins\":[{\"type\":\"bridge\"}]"

static void refused(const char *text, bool single, int code, const char *part)
{
	struct net_list *l = NULL;
	struct err err = { 0 };

	assert_int_equal(net_list_parse(text, strlen(text), single, &l, &err), code);
	assert_text(err_text(&err), part);
	assert_null(l);
}

static struct net_list *taken(const char *text, bool single)
{
	struct net_list *l = NULL;
	struct err err = { 0 };

	assert_ok(net_list_parse(text, strlen(text), single, &l, &err), &err);
	return l;
}

static void lists(void **state)
{
	cleanup_net_list struct net_list *l = NULL;

	l = taken(
		"{\"cniVersion\":\"0.4.0\",\"name\":\"n.1\",\"disableCheck\":true,\"plugins\":["
		"{\"type\":\"bridge\"},{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":"
		"true}}]}",
		false);
	assert_string_equal(l->name, "n.1");
	assert_int_equal(l->version, CNI_0_4_0);
	assert_int_equal(l->n, 2);
	assert_true(l->no_check);
	assert_false(l->no_gc);
	assert_string_equal(net_list_type(l, 1), "portmap");
}

static void single(void **state)
{
	cleanup_net_list struct net_list *l = NULL;

	l = taken("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"ptp\",\"mtu\":1400}", true);
	assert_int_equal(l->n, 1);
	assert_int_equal(l->version, CNI_1_0_0);
	assert_string_equal(net_list_type(l, 0), "ptp");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\"," PLUGIN "}", true, -EINVAL, ".conflist");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\"}", true, -EINVAL, "no type");
}

static void versions(void **state)
{
	static const char *const names[] = { "0.3.1", "0.4.0", "1.0.0", "1.1.0" };
	struct net_list *l;

	for (int i = 0; i < CNI_VERSIONS; i++) {
		cleanup_free char *text =
			str_fmt("{\"cniVersion\":\"%s\",\"name\":\"n\"," PLUGIN "}", names[i]);

		l = taken(text, false);
		assert_int_equal((int)l->version, i);
		net_list_free(l);
	}
	l =
		taken("{\"cniVersion\":\"0.4.0\",\"cniVersions\":[\"1.0.0\",\"9.0.0\",\"1.1.0\"],"
		      "\"name\":\"n\"," PLUGIN "}",
		      false);
	assert_int_equal(l->version, CNI_1_1_0);
	net_list_free(l);
	refused("{\"cniVersion\":\"2.0.0\",\"name\":\"n\"," PLUGIN "}", false, -ENOTSUP,
		"cniVersion \"2.0.0\" is not known; Husk speaks 0.3.1");
	refused("{\"name\":\"n\"," PLUGIN "}", false, -ENOTSUP, "no cniVersion");
	refused("{\"cniVersion\":1,\"name\":\"n\"," PLUGIN "}", false, -ENOTSUP, "no cniVersion");
}

static void bad_lists(void **state)
{
	cleanup_free char *deep = calloc(1, 200), *long_text = malloc(NET_CONF_MAX + 2);
	cleanup_free char *wide = malloc(NET_CONF_MAX);
	struct net_list *l;

	refused("", false, -EPROTO, "not JSON");
	refused("[]", false, -EPROTO, "no object");
	refused("{\"name\":\"n\",\"name\":\"m\"}", false, -EPROTO, "duplicate");
	refused("{\"cniVersion\":\"1.0.0\"," PLUGIN "}", false, -EINVAL, "no name");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"../x\"," PLUGIN "}", false, -EINVAL, "name");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}", false, -EINVAL,
		"no plugins");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[1]}", false, -EPROTO,
		"plug-in 1 is no object");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"../bin/sh\"}]}",
		false, -EINVAL, "plug-in 1 has no type");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"..\"}]}", false,
		-EINVAL, "plug-in 1 has no type");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"x\","
		"\"capabilities\":{\"a\":1}}]}",
		false, -EPROTO, "capability a of plug-in 1");
	refused("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"disableCheck\":\"maybe\"," PLUGIN "}",
		false, -EPROTO, "disableCheck");
	memset(deep, '[', 100);
	refused(deep, false, -EFBIG, "levels");
	memset(wide, ',', NET_CONF_MAX - 1);
	wide[0] = '[';
	wide[NET_CONF_MAX - 1] = '\0';
	refused(wide, false, -EFBIG, "values");
	memset(long_text, ' ', NET_CONF_MAX + 1);
	assert_int_equal(net_list_parse(long_text, NET_CONF_MAX + 1, false, &l, NULL), -EFBIG);
}

/* A plug-in sees its own part, the values that it asked for, and nothing that a file adds. */
static void plugin_config(void **state)
{
	cleanup_net_list struct net_list *l = NULL;
	cleanup_json json_t *caps = json_pack("{s:s, s:s}", "portMappings", "P", "bandwidth", "B");
	cleanup_json json_t *prev = json_pack("{s:i}", "x", 1), *c = NULL, *d = NULL, *want = NULL;
	struct err err = { 0 };

	l =
		taken("{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"plugins\":["
		      "{\"type\":\"bridge\",\"name\":\"z\",\"prevResult\":{},\"runtimeConfig\":{"
		      "\"e\":1}},"
		      "{\"type\":\"portmap\",\"snat\":true,\"capabilities\":{\"portMappings\":true,"
		      "\"bandwidth\":false}}]}",
		      false);
	assert_ok(net_list_config(l, 0, caps, NULL, NULL, &c, &err), &err);
	want = json_pack("{s:s, s:s, s:s}", "type", "bridge", "name", "n", "cniVersion", "0.4.0");
	assert_true(json_equal(c, want));
	assert_ok(net_list_config(l, 1, caps, prev, NULL, &d, &err), &err);
	json_decref(want);
	want = json_pack("{s:s, s:s, s:s, s:b, s:{s:b, s:b}, s:{s:s}, s:{s:i}}", "type", "portmap",
			 "name", "n", "cniVersion", "0.4.0", "snat", 1, "capabilities",
			 "portMappings", 1, "bandwidth", 0, "runtimeConfig", "portMappings", "P",
			 "prevResult", "x", 1);
	assert_true(json_equal(d, want));
}

static void pod_args(void **state)
{
	Cri__PodSandboxMetadata meta = CRI__POD_SANDBOX_METADATA__INIT;
	Cri__PodSandboxConfig p = CRI__POD_SANDBOX_CONFIG__INIT;
	cleanup_free char *args = NULL;
	struct err err = { 0 };

	meta.name = (char *)"web";
	meta.namespace_ = (char *)"ns";
	meta.uid = (char *)"u-1";
	p.metadata = &meta;
	assert_ok(net_pod_args("abc", &p, &args, &err), &err);
	assert_string_equal(args,
			    "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;"
			    "K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1");
	assert_int_equal(net_pod_args("../x", &p, &args, &err), -EINVAL);
	assert_int_equal(net_pod_args("", &p, &args, &err), -EINVAL);
	meta.name = (char *)"a;b";
	assert_int_equal(net_pod_args("abc", &p, &args, &err), -EINVAL);
}

static Cri__PortMapping port(Cri__Protocol protocol, int host, int pod, const char *host_ip)
{
	Cri__PortMapping p = CRI__PORT_MAPPING__INIT;

	p.protocol = protocol;
	p.host_port = host;
	p.container_port = pod;
	p.host_ip = (char *)host_ip;
	return p;
}

static void pod_caps(void **state)
{
	Cri__PortMapping tcp = port(CRI__PROTOCOL__TCP, 8080, 80, "");
	Cri__PortMapping none = port(CRI__PROTOCOL__UDP, 0, 53, "");
	Cri__PortMapping sctp = port(CRI__PROTOCOL__SCTP, 99, 98, "::1");
	Cri__PortMapping *ports[] = { &tcp, &none, &sctp };
	Cri__PodSandboxConfig__AnnotationsEntry a =
		CRI__POD_SANDBOX_CONFIG__ANNOTATIONS_ENTRY__INIT;
	Cri__PodSandboxConfig__AnnotationsEntry b = a, *notes[] = { &a, &b };
	char *servers[] = { (char *)"10.0.0.10" };
	Cri__LinuxPodSandboxConfig lin = CRI__LINUX_POD_SANDBOX_CONFIG__INIT;
	Cri__DNSConfig dns = CRI__DNSCONFIG__INIT;
	Cri__PodSandboxConfig p = CRI__POD_SANDBOX_CONFIG__INIT;
	cleanup_json json_t *caps = NULL, *want = NULL;
	struct err err = { 0 };

	a.key = (char *)"a";
	a.value = (char *)"b";
	b.key = (char *)"kubernetes.io/ingress-bandwidth";
	b.value = (char *)"10M";
	p.n_port_mappings = 3;
	p.port_mappings = ports;
	p.n_annotations = 2;
	p.annotations = notes;
	dns.n_servers = 1;
	dns.servers = servers;
	p.dns_config = &dns;
	lin.cgroup_parent = (char *)"/kubepods/x";
	p.linux = &lin;
	assert_ok(net_pod_caps(&p, &caps, &err), &err);
	want = json_pack(
		"{s:[{s:i,s:i,s:s,s:s},{s:i,s:i,s:s,s:s}], s:{s:s,s:s}, s:{s:i,s:I},"
		"s:{s:[s]}, s:s}",
		"portMappings", "hostPort", 8080, "containerPort", 80, "protocol", "tcp", "hostIP",
		"", "hostPort", 99, "containerPort", 98, "protocol", "sctp", "hostIP", "::1",
		"io.kubernetes.cri.pod-annotations", "a", "b", "kubernetes.io/ingress-bandwidth",
		"10M", "bandwidth", "ingressRate", 10000000, "ingressBurst", (json_int_t)4294967295,
		"dns", "servers", "10.0.0.10", "cgroupPath", "/kubepods/x");
	assert_non_null(want);
	assert_true(json_equal(caps, want));

	tcp = port(CRI__PROTOCOL__TCP, 70000, 80, "");
	assert_int_equal(net_pod_caps(&p, &want, &err), -EINVAL);
	assert_text(err_text(&err), "port mapping 70000");
	tcp = port(CRI__PROTOCOL__TCP, 80, 80, "nowhere");
	assert_int_equal(net_pod_caps(&p, &want, &err), -EINVAL);
	tcp = port((Cri__Protocol)7, 80, 80, "");
	assert_int_equal(net_pod_caps(&p, &want, &err), -EINVAL);
	p.n_port_mappings = 0;
	b.key = (char *)"kubernetes.io/egress-bandwidth";
	b.value = (char *)"5";
	assert_int_equal(net_pod_caps(&p, &want, &err), -EINVAL);
	assert_text(err_text(&err), "egress-bandwidth: \"5\"");
	b.key = (char *)"x";
	b.value = (char *)"\xff";
	assert_int_equal(net_pod_caps(&p, &want, &err), -EINVAL);
}

static void quantities(void **state)
{
	static const struct {
		const char *text;
		uint64_t n; /* 0 = refused */
	} cases[] = { { "10M", 10000000 },
		      { "1.5Ki", 1536 },
		      { "2e6", 2000000 },
		      { "2E3", 2000 },
		      { "5e+3", 5000 },
		      { "1234567m", 1235 },
		      { ".5M", 500000 },
		      { "+4k", 4000 },
		      { "1P", 1000000000000000 },
		      { "1Gi", 1073741824 },
		      { "999", 0 },
		      { "2P", 0 },
		      { "1Ei", 0 },
		      { "999999999999999999E", 0 },
		      { "1e19", 0 },
		      { "5e++3", 0 },
		      { "", 0 },
		      { ".", 0 },
		      { "-5k", 0 },
		      { "5 k", 0 },
		      { "1.2.3k", 0 },
		      { "10Mi!", 0 },
		      { "e3", 0 },
		      { "1111111111111111111", 0 } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t n = 0;
		int r = net_quantity(cases[i].text, 1000, 1000000000000000, &n);

		if (r != (cases[i].n ? 0 : -EINVAL) || n != cases[i].n)
			fail_msg("\"%s\": %d, %llu", cases[i].text, r, (unsigned long long)n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists),	 cmocka_unit_test(single),
		cmocka_unit_test(versions),	 cmocka_unit_test(bad_lists),
		cmocka_unit_test(plugin_config), cmocka_unit_test(pod_args),
		cmocka_unit_test(pod_caps),	 cmocka_unit_test(quantities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
