/* The kernel's words about a pod's network namespace, made here; real ones are in the corpus of
 * fuzz_net_mirror, and test_agent_net reads back what the agent has set. */
#include "test/lib/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "shim/net/mirror.h"

#define INDEX 3

static struct mirror m;
static struct err err;
static struct nlmsg msg;

static int reset(void **state)
{
	mirror_init(&m);
	err = (struct err){ 0 };
	m.err = &err;
	return 0;
}

static int fini(void **state)
{
	mirror_fini(&m);
	return 0;
}

static int take(void)
{
	struct cur c = cur_of(msg.data, msg.len);
	struct nlmsg_view v;

	assert_false(msg.full);
	assert_true(nlmsg_next(&c, &v));
	return mirror_take(&v, &m);
}

static int take_link(int index, const char *name, unsigned type, unsigned flags)
{
	const struct ifinfomsg i = { .ifi_index = index,
				     .ifi_type = (unsigned short)type,
				     .ifi_flags = flags };
	static const uint8_t mac[6] = { 10, 1, 2, 3, 4, 5 };
	int32_t conf[DEVCONF_ACCEPT_RA + 1] = { [DEVCONF_ACCEPT_RA] = 1 };
	size_t spec, v6;

	nlmsg_begin(&msg, RTM_NEWLINK, 0, &i, sizeof(i));
	nlmsg_put_str(&msg, IFLA_IFNAME, name);
	nlmsg_put(&msg, IFLA_ADDRESS, mac, sizeof(mac));
	nlmsg_put_u32(&msg, IFLA_MTU, 1400);
	spec = nlmsg_nest(&msg, IFLA_AF_SPEC);
	v6 = nlmsg_nest(&msg, AF_INET6);
	nlmsg_put(&msg, IFLA_INET6_CONF, conf, sizeof(conf));
	nlmsg_end(&msg, v6);
	nlmsg_end(&msg, spec);
	return take();
}

static void eth0(void)
{
	assert_int_equal(take_link(1, "lo", ARPHRD_LOOPBACK, IFF_UP | IFF_LOOPBACK), 0);
	assert_int_equal(take_link(2, "tunl0", ARPHRD_TUNNEL, 0), 0); /* down */
	assert_int_equal(take_link(INDEX, "eth0", ARPHRD_ETHER, IFF_UP), 0);
}

static void put_ip(uint16_t attr, const char *ip)
{
	uint8_t b[16];
	bool v6 = strchr(ip, ':');

	assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, ip, b), 1);
	nlmsg_put(&msg, attr, b, v6 ? 16 : 4);
}

static void assert_ip(const ProtobufCBinaryData *b, const char *ip)
{
	uint8_t want[16];
	size_t n = strchr(ip, ':') ? 16 : 4;

	assert_int_equal(inet_pton(n == 16 ? AF_INET6 : AF_INET, ip, want), 1);
	assert_int_equal(b->len, n);
	assert_memory_equal(b->data, want, n);
}

static void begin_address(int index, unsigned prefix, uint32_t flags)
{
	const struct ifaddrmsg i = { .ifa_family = AF_INET,
				     .ifa_prefixlen = (unsigned char)prefix,
				     .ifa_index = (unsigned)index };

	nlmsg_begin(&msg, RTM_NEWADDR, 0, &i, sizeof(i));
	nlmsg_put_u32(&msg, IFA_FLAGS, flags);
}

static struct rtmsg route_of(unsigned prefix)
{
	return (struct rtmsg){ .rtm_family = AF_INET,
			       .rtm_dst_len = (unsigned char)prefix,
			       .rtm_table = RT_TABLE_MAIN,
			       .rtm_protocol = RTPROT_BOOT,
			       .rtm_type = RTN_UNICAST };
}

static void begin_route(const struct rtmsg *i, int oif)
{
	nlmsg_begin(&msg, RTM_NEWROUTE, 0, i, sizeof(*i));
	nlmsg_put_u32(&msg, RTA_OIF, (uint32_t)oif);
}

static void test_interface(void **state)
{
	eth0();
	mirror_finish(&m);
	assert_int_equal(m.ifindex, INDEX);
	assert_string_equal(m.iface.name, "eth0");
	assert_int_equal(m.iface.mtu, 1400);
	assert_int_equal(m.iface.accept_ra, 1);
	assert_int_equal(m.iface.mac.len, 6);
	assert_int_equal(m.iface.mac.data[0], 10);
}

static void test_no_interface(void **state)
{
	assert_int_equal(take_link(1, "lo", ARPHRD_LOOPBACK, IFF_UP | IFF_LOOPBACK), 0);
	mirror_finish(&m);
	assert_int_equal(m.ifindex, 0);
}

static void test_two_interfaces(void **state)
{
	eth0();
	assert_int_equal(take_link(4, "net1", ARPHRD_ETHER, IFF_UP), -ENOTSUP);
	assert_text(err_text(&err), "eth0 and net1");
}

static void test_not_ethernet(void **state)
{
	assert_int_equal(take_link(4, "wg0", ARPHRD_NONE, IFF_UP), -ENOTSUP);
	assert_text(err_text(&err), "wg0");
}

static void test_addresses(void **state)
{
	eth0();
	begin_address(INDEX, 24, IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE);
	put_ip(IFA_LOCAL, "192.0.2.2");
	put_ip(IFA_ADDRESS, "192.0.2.2");
	put_ip(IFA_BROADCAST, "192.0.2.255");
	assert_int_equal(take(), 0);
	begin_address(INDEX, 32, IFA_F_PERMANENT);
	put_ip(IFA_LOCAL, "10.0.0.1");
	put_ip(IFA_ADDRESS, "10.0.0.2");
	assert_int_equal(take(), 0);
	/* What a router gave, and what others have. */
	begin_address(INDEX, 24, 0);
	put_ip(IFA_LOCAL, "192.0.2.3");
	assert_int_equal(take(), 0);
	begin_address(INDEX + 1, 24, IFA_F_PERMANENT);
	put_ip(IFA_LOCAL, "192.0.2.4");
	assert_int_equal(take(), 0);
	mirror_finish(&m);
	assert_int_equal(m.iface.n_addresses, 2);
	assert_ip(&m.addresses[0]->address, "192.0.2.2");
	assert_int_equal(m.addresses[0]->peer.len, 0);
	assert_ip(&m.addresses[0]->broadcast, "192.0.2.255");
	assert_true(m.addresses[0]->no_prefix_route);
	assert_ip(&m.addresses[1]->peer, "10.0.0.2");
	assert_false(m.addresses[1]->no_prefix_route);
}

static void test_bad_addresses(void **state)
{
	eth0();
	begin_address(INDEX, 33, IFA_F_PERMANENT);
	put_ip(IFA_LOCAL, "192.0.2.2");
	assert_int_equal(take(), -EBADMSG);
	begin_address(INDEX, 24, IFA_F_PERMANENT);
	put_ip(IFA_LOCAL, "2001:db8::1"); /* of the wrong family */
	assert_int_equal(take(), -EBADMSG);
	begin_address(INDEX, 24, IFA_F_PERMANENT);
	assert_int_equal(take(), -EBADMSG);
	begin_address(INDEX, 24, IFA_F_PERMANENT | IFA_F_DADFAILED);
	put_ip(IFA_LOCAL, "192.0.2.2");
	assert_int_equal(take(), -EADDRINUSE);
}

static void test_too_many_addresses(void **state)
{
	eth0();
	for (unsigned i = 0; i <= POD_ADDRESSES_MAX; i++) {
		begin_address(INDEX, 32, IFA_F_PERMANENT);
		put_ip(IFA_LOCAL, "192.0.2.2");
		assert_int_equal(take(), i < POD_ADDRESSES_MAX ? 0 : -E2BIG);
	}
	assert_text(err_text(&err), "256");
}

static void test_routes(void **state)
{
	struct rtmsg i = route_of(0);

	eth0();
	i.rtm_flags = RTNH_F_ONLINK;
	begin_route(&i, INDEX);
	put_ip(RTA_GATEWAY, "169.254.1.1");
	nlmsg_put_u32(&msg, RTA_PRIORITY, 50);
	assert_int_equal(take(), 0);
	i = route_of(32);
	i.rtm_scope = RT_SCOPE_LINK;
	begin_route(&i, INDEX);
	put_ip(RTA_DST, "169.254.1.1");
	assert_int_equal(take(), 0);
	/* The kernel's own, a router's, those of the table local. */
	i.rtm_protocol = RTPROT_KERNEL;
	begin_route(&i, INDEX);
	assert_int_equal(take(), 0);
	i.rtm_protocol = RTPROT_RA;
	begin_route(&i, INDEX);
	assert_int_equal(take(), 0);
	i = route_of(32);
	i.rtm_table = RT_TABLE_LOCAL;
	begin_route(&i, INDEX);
	assert_int_equal(take(), 0);
	mirror_finish(&m);
	assert_int_equal(m.iface.n_routes, 2);
	/* The one that the gateway needs comes first. */
	assert_ip(&m.routes[0]->destination, "169.254.1.1");
	assert_int_equal(m.routes[0]->scope, RT_SCOPE_LINK);
	assert_ip(&m.routes[1]->gateway, "169.254.1.1");
	assert_int_equal(m.routes[1]->metric, 50);
	assert_true(m.routes[1]->on_link);
	assert_false(m.routes[0]->on_link);
}

static void refuse_route(const struct rtmsg *i, int oif, uint16_t attr, const char *text)
{
	begin_route(i, oif);
	if (attr)
		nlmsg_put_u32(&msg, attr, 100);
	assert_int_equal(take(), -ENOTSUP);
	assert_text(err_text(&err), text);
}

static void test_routes_refused(void **state)
{
	struct rtmsg i = route_of(0);

	eth0();
	refuse_route(&i, INDEX, RTA_TABLE, "table");
	refuse_route(&i, INDEX, RTA_MULTIPATH, "several gateways");
	refuse_route(&i, INDEX, RTA_VIA, "encapsulation");
	refuse_route(&i, INDEX + 1, 0, "another interface");
	i.rtm_tos = 4;
	refuse_route(&i, INDEX, 0, "type of service");
	i = route_of(0);
	i.rtm_type = RTN_THROW;
	refuse_route(&i, INDEX, 0, "unusual type");
	i = route_of(33);
	begin_route(&i, INDEX);
	put_ip(RTA_DST, "192.0.2.0");
	assert_int_equal(take(), -EBADMSG);
	i = route_of(24); /* of what? */
	begin_route(&i, INDEX);
	assert_int_equal(take(), -EBADMSG);
}

static void test_neighbours(void **state)
{
	struct ndmsg i = { .ndm_family = AF_INET6,
			   .ndm_ifindex = INDEX,
			   .ndm_state = NUD_PERMANENT };
	static const uint8_t mac[8] = { 2, 0, 0, 0, 0, 9 };

	eth0();
	nlmsg_begin(&msg, RTM_NEWNEIGH, 0, &i, sizeof(i));
	put_ip(NDA_DST, "2001:db8::1");
	nlmsg_put(&msg, NDA_LLADDR, mac, 6);
	assert_int_equal(take(), 0);
	i.ndm_state = NUD_REACHABLE;
	nlmsg_begin(&msg, RTM_NEWNEIGH, 0, &i, sizeof(i));
	assert_int_equal(take(), 0);
	i.ndm_state = NUD_PERMANENT;
	nlmsg_begin(&msg, RTM_NEWNEIGH, 0, &i, sizeof(i));
	put_ip(NDA_DST, "2001:db8::1");
	nlmsg_put(&msg, NDA_LLADDR, mac, 8);
	assert_int_equal(take(), -EBADMSG);
	mirror_finish(&m);
	assert_int_equal(m.iface.n_neighbours, 1);
	assert_ip(&m.neighbours[0]->address, "2001:db8::1");
	assert_int_equal(m.neighbours[0]->mac.data[5], 9);
}

static void test_cut(void **state)
{
	static const uint8_t body[3];
	const struct nlmsg_view v = { .type = RTM_NEWLINK, .body = body, .n = sizeof(body) };

	for (uint16_t type = RTM_NEWLINK; type <= RTM_NEWNEIGH; type = (uint16_t)(type + 4)) {
		struct nlmsg_view w = v;

		w.type = type;
		assert_int_equal(mirror_take(&w, &m), -EBADMSG);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, reset, fini)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_interface),	       TEST(test_no_interface), TEST(test_two_interfaces),
		TEST(test_not_ethernet),       TEST(test_addresses),	TEST(test_bad_addresses),
		TEST(test_too_many_addresses), TEST(test_routes),	TEST(test_routes_refused),
		TEST(test_neighbours),	       TEST(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
