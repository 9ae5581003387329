/* What plug-ins answer to ADD: every version, and every lie. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/result.h"

#define POD "\"interfaces\":[{\"name\":\"eth0\",\"mac\":\"0a:01:02:03:04:05\",\"sandbox\":\"/n\"}]"

static int parse(const char *text, struct net_result **ret, struct err *err)
{
	cleanup_json json_t *j = NULL;
	int r = net_json_parse(text, strlen(text), &j, err);

	return r < 0 ? r : net_result_parse(j, ret, err);
}

/* `body` in an object with a version. */
static void refused(const char *version, const char *body, int code, const char *part)
{
	cleanup_free char *text =
		str_fmt("{\"cniVersion\":\"%s\"%s%s}", version, *body ? "," : "", body);
	struct net_result *res = NULL;
	struct err err = { 0 };

	assert_int_equal(parse(text, &res, &err), code);
	assert_text(err_text(&err), part);
	assert_null(res);
}

static void bad_ip(const char *ip, const char *part)
{
	cleanup_free char *body = str_fmt(POD ",\"ips\":[{%s}]", ip);

	refused("1.0.0", body, -EPROTO, part);
}

static void address_is(const struct net_addr *a, const char *text, int prefix)
{
	char out[46];

	net_addr_format(a, out);
	assert_string_equal(out, text);
	assert_int_equal(a->prefix, prefix);
}

static void whole(void **state)
{
	cleanup_net_result struct net_result *res = NULL;
	struct err err = { 0 };

	assert_ok(
		parse("{\"cniVersion\":\"1.1.0\",\"interfaces\":["
		      "{\"name\":\"cni0\",\"mac\":\"aa:bb:cc:00:00:01\"},"
		      "{\"name\":\"eth0\",\"mac\":\"0A:01:02:03:04:05\",\"sandbox\":\"/run/netns/"
		      "x\",\"mtu\":1400}],"
		      "\"ips\":[{\"address\":\"10.88.0.5/"
		      "16\",\"gateway\":\"10.88.0.1\",\"interface\":1},"
		      "{\"address\":\"fd00::5/64\",\"interface\":1}],"
		      "\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.88.0.1\"},"
		      "{\"dst\":\"::/"
		      "0\",\"mtu\":1300,\"advmss\":1200,\"priority\":5,\"table\":0,\"scope\":253}],"
		      "\"dns\":{\"nameservers\":[\"10.0.0.10\",\"fd00::10\"],\"domain\":\"d\","
		      "\"search\":[\"a\",\"b\"],\"options\":[\"ndots:5\"]}}",
		      &res, &err),
		&err);
	assert_int_equal(res->n_interfaces, 2);
	assert_false(res->interfaces[0].in_pod);
	assert_true(res->interfaces[1].in_pod);
	assert_int_equal(res->interfaces[1].mac[0], 0x0a);
	assert_int_equal(res->interfaces[1].mac[5], 0x05);
	assert_int_equal(res->interfaces[1].mtu, 1400);
	assert_int_equal(res->n_ips, 2);
	address_is(&res->ips[0].address, "10.88.0.5", 16);
	address_is(&res->ips[0].gateway, "10.88.0.1", 32);
	address_is(&res->ips[1].address, "fd00::5", 64);
	assert_int_equal(res->ips[1].gateway.family, 0);
	assert_int_equal(res->ips[1].interface, 1);
	assert_int_equal(res->n_routes, 2);
	address_is(&res->routes[0].dst, "0.0.0.0", 0);
	assert_false(res->routes[0].has_table);
	assert_int_equal(res->routes[1].mtu, 1300);
	assert_int_equal(res->routes[1].advmss, 1200);
	assert_int_equal(res->routes[1].priority, 5);
	assert_true(res->routes[1].has_table && res->routes[1].has_scope);
	assert_int_equal(res->routes[1].scope, 253);
	assert_string_equal(res->nameservers[1], "fd00::10");
	assert_string_equal(res->search[1], "b");
	assert_string_equal(res->options[0], "ndots:5");
	assert_string_equal(res->domain, "d");
}

static void old_versions(void **state)
{
	struct net_result *res = NULL;
	struct err err = { 0 };

	assert_ok(parse("{\"cniVersion\":\"0.3.1\"," POD ",\"ips\":[{\"version\":\"4\","
			"\"address\":\"10.1.0.2/24\",\"interface\":0}],\"routes\":null,\"dns\":{}}",
			&res, &err),
		  &err);
	assert_int_equal(res->n_ips, 1);
	net_result_free(res);
	res = NULL;
	assert_ok(parse("{\"cniVersion\":\"0.4.0\"}", &res, &err), &err);
	assert_int_equal(res->n_ips, 0);
	net_result_free(res);
	refused("0.4.0", "\"ips\":[{\"address\":\"10.1.0.2/24\"}]", -EPROTO, "version \"\"");
	refused("0.4.0", "\"ips\":[{\"version\":\"6\",\"address\":\"10.1.0.2/24\"}]", -EPROTO,
		"10.1.0.2/24 is not of version \"6\"");
	refused("1.0.0", "\"ips\":[{\"version\":\"4\",\"address\":\"fd00::2/64\"}]", -EPROTO,
		"not of version \"4\"");
	refused("0.2.0", "", -ENOTSUP, "cniVersion \"0.2.0\" is not known");
	res = NULL;
	assert_int_equal(parse("{\"ips\":[]}", &res, &err), -EPROTO);
	assert_text(err_text(&err), "no cniVersion");
}

static void hostile(void **state)
{
	struct net_result *res = NULL;
	struct err err = { 0 };
	struct buf b;

	refused("1.0.0", "\"ips\":{}", -EPROTO, "ips is no list");
	refused("1.0.0", "\"ips\":[1]", -EPROTO, "address 1");
	bad_ip("\"address\":\"10.0.0.1\"", "no address with a prefix");
	bad_ip("\"address\":\"10.0.0.1/33\"", "no address with a prefix");
	bad_ip("\"address\":\"10.0.0.1/0\"", "no address with a prefix");
	bad_ip("\"address\":\"10.0.0.1/-1\"", "no address with a prefix");
	bad_ip("\"address\":\"10.0.0.1/2 \"", "no address with a prefix");
	bad_ip("\"address\":\"fd00::1/129\"", "no address with a prefix");
	bad_ip("\"address\":\"10.0.0/24\"", "no address with a prefix");
	bad_ip("\"address\":\"::ffff:10.0.0.1/96\"", "no address with a prefix");
	bad_ip("\"address\":\"fd00:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001/64\"",
	       "no address with a prefix");
	bad_ip("\"address\":17", "no address with a prefix");
	bad_ip("\"address\":\"127.0.0.2/8\"", "cannot be an interface's");
	bad_ip("\"address\":\"224.0.0.1/24\"", "cannot be an interface's");
	bad_ip("\"address\":\"0.0.0.0/24\"", "cannot be an interface's");
	bad_ip("\"address\":\"::/64\"", "cannot be an interface's");
	bad_ip("\"address\":\"ff02::1/64\"", "cannot be an interface's");
	bad_ip("\"address\":\"10.0.0.2/24\",\"gateway\":\"fd00::1\"", "no gateway");
	bad_ip("\"address\":\"10.0.0.2/24\",\"gateway\":\"x\"", "no gateway");
	bad_ip("\"address\":\"10.0.0.2/24\",\"gateway\":5", "no gateway");
	bad_ip("\"address\":\"10.0.0.2/24\",\"interface\":1", "interface that is not there");
	bad_ip("\"address\":\"10.0.0.2/24\",\"interface\":-2", "interface that is not there");
	bad_ip("\"address\":\"10.0.0.2/24\",\"interface\":\"0\"", "interface that is not there");
	bad_ip("\"address\":\"10.0.0.2/24\",\"address\":\"10.0.0.3/24\"", "duplicate");
	refused("1.0.0", "\"interfaces\":[{\"name\":\"a/b\"}]", -EPROTO, "interface 1: no name");
	refused("1.0.0", "\"interfaces\":[{\"name\":\"sixteen-letters-\"}]", -EPROTO, "no name");
	refused("1.0.0", "\"interfaces\":[{\"name\":\"..\"}]", -EPROTO, "no name");
	refused("1.0.0", "\"interfaces\":[{\"mac\":\"\"}]", -EPROTO, "no name");
	refused("1.0.0",
		"\"interfaces\":[{\"name\":\"e\",\"mac\":\"0a:01:02:03:04\",\"sandbox\":\"x\"}]",
		-EPROTO, "no MAC address");
	refused("1.0.0",
		"\"interfaces\":[{\"name\":\"e\",\"mac\":\"0a:01:02:03:04:05:06\",\"sandbox\":"
		"\"x\"}]",
		-EPROTO, "no MAC address");
	refused("1.0.0",
		"\"interfaces\":[{\"name\":\"e\",\"mac\":\"01:01:02:03:04:05\",\"sandbox\":\"x\"}]",
		-EPROTO, "address of a group");
	refused("1.1.0", "\"interfaces\":[{\"name\":\"e\",\"mtu\":-1}]", -EPROTO, "mtu");
	refused("1.1.0", "\"routes\":[{\"dst\":\"10.0.0.0\"}]", -EPROTO, "no range");
	refused("1.1.0", "\"routes\":[{\"dst\":\"10.0.0.0/8\",\"gw\":\"fd00::1\"}]", -EPROTO,
		"no gateway");
	refused("1.1.0", "\"routes\":[{\"dst\":\"10.0.0.0/8\",\"mtu\":70000}]", -EPROTO, "number");
	refused("1.1.0", "\"routes\":[{\"dst\":\"10.0.0.0/8\",\"scope\":256}]", -EPROTO, "number");
	refused("1.0.0", "\"dns\":[]", -EPROTO, "dns: no object");
	refused("1.0.0", "\"dns\":{\"nameservers\":[\"x\"]}", -EPROTO, "no address");
	refused("1.0.0", "\"dns\":{\"search\":[\"a\\nnameserver 6.6.6.6\"]}", -EPROTO, "no word");
	refused("1.0.0", "\"dns\":{\"domain\":\"a b\"}", -EPROTO, "domain");

	buf_init(&b, 1 * MIB);
	assert_int_equal(buf_printf(&b, "{\"cniVersion\":\"1.0.0\",\"ips\":["), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_printf(&b, "%s{\"address\":\"10.0.%d.%d/8\"}", i ? "," : "",
					    i / 200, i % 200 + 1),
				 0);
	assert_int_equal(buf_printf(&b, "]}"), 0);
	cleanup_free char *text = buf_take_str(&b);
	assert_int_equal(parse(text, &res, &err), -EFBIG);
	assert_text(err_text(&err), "ips: 1000 entries, at most 32");
}

static void convert(void **state)
{
	cleanup_json json_t *j = NULL;
	cleanup_net_result struct net_result *res = NULL, *back = NULL;
	const char text[] =
		"{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.0.0.2/8\"},"
		"{\"address\":\"fd00::2/64\"}]}";
	struct err err = { 0 };

	assert_ok(net_json_parse(text, strlen(text), &j, &err), &err);
	assert_ok(net_result_convert(j, CNI_0_3_1, &err), &err);
	assert_string_equal(net_json_str(j, "cniVersion"), "0.3.1");
	assert_ok(net_result_parse(j, &res, &err), &err);
	assert_ok(net_result_convert(j, CNI_1_1_0, &err), &err);
	assert_null(json_object_get(json_array_get(json_object_get(j, "ips"), 0), "version"));
	assert_ok(net_result_parse(j, &back, &err), &err);
}

static void lines(void **state)
{
	char out[8];

	net_json_line(out, sizeof(out), "a\n\tb\n\n", 6);
	assert_string_equal(out, "a b");
	net_json_line(out, sizeof(out), "123456\xc3\xa9", 8);
	assert_string_equal(out, "123456");
	net_json_line(out, sizeof(out), "\n", 1);
	assert_string_equal(out, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole),   cmocka_unit_test(old_versions),
		cmocka_unit_test(hostile), cmocka_unit_test(convert),
		cmocka_unit_test(lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
