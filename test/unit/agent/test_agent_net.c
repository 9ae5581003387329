/* What SetNetwork may say; and what it does, in a network namespace of this process, read back by
 * the shim's eyes. The second half needs root and iproute2. */
#include "test/lib/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/net/network.h"
#include "base/net/netlink.h"
#include "shim/net/mirror.h"

static uint8_t ip4[] = { 192, 0, 2, 2 }, gw4[] = { 169, 254, 1, 1 }, peer4[] = { 10, 0, 0, 2 };
static uint8_t other4[] = { 10, 0, 0, 1 }, bcast4[] = { 192, 0, 2, 255 };
static uint8_t ip6[] = { 0x20, 1, 0xd, 0xb8, [15] = 2 }, gw6[] = { 0xfe, 0x80, [15] = 1 };
static uint8_t mac[] = { 10, 0x58, 1, 2, 3, 4 };

#define BYTES(a)                                                                                   \
	(ProtobufCBinaryData)                                                                      \
	{                                                                                          \
		.data = (a), .len = sizeof(a)                                                      \
	}

static struct request {
	Agent__SetNetworkRequest req;
	Agent__Interface i;
	Agent__Address a[3], *addresses[3];
	Agent__Route r[4], *routes[4];
	Agent__Neighbour n[2], *neighbours[2];
} q;

/* As of a plug-in that gives addresses of every kind and an on-link gateway. */
static void fill(void)
{
	agent__set_network_request__init(&q.req);
	agent__interface__init(&q.i);
	q.req.interface = &q.i;
	q.i.name = (char *)"eth0";
	q.i.mac = BYTES(mac);
	q.i.mtu = 1400;
	q.i.addresses = q.addresses;
	q.i.routes = q.routes;
	q.i.neighbours = q.neighbours;
	q.i.n_addresses = 3;
	q.i.n_routes = 4;
	q.i.n_neighbours = 2;
	for (int k = 0; k < 3; k++) {
		agent__address__init(&q.a[k]);
		q.addresses[k] = &q.a[k];
	}
	for (int k = 0; k < 4; k++) {
		agent__route__init(&q.r[k]);
		q.routes[k] = &q.r[k];
		q.r[k].type = RTN_UNICAST;
		q.r[k].protocol = RTPROT_BOOT;
	}
	for (int k = 0; k < 2; k++) {
		agent__neighbour__init(&q.n[k]);
		q.neighbours[k] = &q.n[k];
		q.n[k].mac = BYTES(mac);
	}
	q.a[0].address = BYTES(ip4);
	q.a[0].broadcast = BYTES(bcast4);
	q.a[0].prefix = 24;
	q.a[1].address = BYTES(other4);
	q.a[1].peer = BYTES(peer4);
	q.a[1].prefix = 32;
	q.a[2].address = BYTES(ip6);
	q.a[2].prefix = 64;
	q.r[0].destination = BYTES(gw4);
	q.r[0].prefix = 32;
	q.r[0].scope = RT_SCOPE_LINK;
	q.r[1].gateway = BYTES(gw4);
	q.r[1].on_link = true;
	q.r[1].metric = 50;
	q.r[1].mtu = 1300;
	q.r[1].source = BYTES(ip4);
	q.r[2].v6 = true;
	q.r[2].gateway = BYTES(gw6);
	q.r[2].metric = 1024;
	q.r[3].gateway = BYTES(gw4);
	q.r[3].destination = BYTES(bcast4);
	q.r[3].prefix = 32;
	q.r[3].on_link = true;
	q.n[0].address = BYTES(gw4);
	q.n[1].address = BYTES(gw6);
}

static void refused(const char *text)
{
	struct err err = { 0 };

	assert_int_equal(network_validate(&q.req, &err), -EINVAL);
	assert_text(err_text(&err), text);
	fill();
}

static void test_validate(void **state)
{
	fill();
	assert_int_equal(network_validate(&q.req, NULL), 0);
	q.req.interface = NULL;
	refused("missing");
	for (const char *const *s = (const char *const[]){ "", ".", "..", "lo", "a/b", "a b", "a%d",
							   "a:1", "0123456789abcdef", NULL };
	     *s; s++) {
		q.i.name = (char *)*s;
		refused("name");
	}
	q.i.mac.len = 5;
	refused("MAC");
	q.i.mac = BYTES(bcast4);
	refused("MAC");
	q.i.mtu = 67;
	refused("MTU");
	q.i.mtu = 65536;
	refused("MTU");
	q.i.accept_ra = 3;
	refused("accept_ra");
	q.i.n_addresses = POD_ADDRESSES_MAX + 1;
	refused("257 addresses");
	q.a[0].prefix = 33;
	refused("address 0");
	q.a[1].peer = BYTES(ip6);
	refused("address 1");
	q.a[2].address.len = 0;
	refused("address 2");
	q.r[0].prefix = 33;
	refused("route 0");
	q.r[0].destination.len = 0;
	refused("route 0");
	q.r[1].gateway = BYTES(gw6);
	refused("route 1");
	q.r[2].type = RTN_LOCAL;
	refused("route 2");
	q.r[2].scope = 256;
	refused("route 2");
	q.n[1].mac.len = 0;
	refused("neighbour 1");
}

static int test_on_object(const struct nlmsg_view *v, void *arg)
{
	return mirror_take(v, arg);
}

static void read_back(struct mirror *m, struct err *err)
{
	cleanup_netlink struct netlink nl = { .fd = -1 };
	static const uint16_t types[] = { RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH };
	static const uint8_t zero[16];
	static const size_t heads[] = { sizeof(struct ifinfomsg), sizeof(struct ifaddrmsg),
					sizeof(struct rtmsg), sizeof(struct ndmsg) };
	struct nlmsg q2;

	mirror_init(m);
	m->err = err;
	assert_int_equal(netlink_open(&nl), 0);
	for (int k = 0; k < 4; k++) {
		nlmsg_begin(&q2, types[k], 0, zero, heads[k]);
		assert_int_equal(netlink_dump(&nl, &q2, test_on_object, m), 0);
	}
	mirror_finish(m);
}

static void assert_bytes(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->data, b->data, a->len);
}

static void assert_route(const struct mirror *m, const Agent__Route *want)
{
	for (size_t k = 0; k < m->iface.n_routes; k++) {
		const Agent__Route *r = m->routes[k];

		if (r->v6 != want->v6 || r->prefix != want->prefix ||
		    r->destination.len != want->destination.len ||
		    (r->destination.len &&
		     memcmp(r->destination.data, want->destination.data, r->destination.len) != 0))
			continue;
		assert_bytes(&r->gateway, &want->gateway);
		assert_bytes(&r->source, &want->source);
		assert_int_equal(r->metric, want->metric);
		assert_int_equal(r->mtu, want->mtu);
		assert_int_equal(r->scope, want->scope);
		assert_int_equal(r->on_link, want->on_link);
		assert_int_equal(r->protocol, want->protocol);
		return;
	}
	fail_msg("a route is missing");
}

static void test_set(void **state)
{
	static struct mirror m;
	struct err err = { 0 };

	if (geteuid() != 0) {
		print_message("skipped: needs root\n");
		skip();
	}
	fill();
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(network_set(&q.req, &err), -ENODEV);
	/* An Ethernet interface that needs no other end. */
	assert_int_equal(system("ip link set lo up && ip link add card type bridge"), 0);
	err = (struct err){ 0 };
	if (network_set(&q.req, &err) < 0)
		fail_msg("%s", err_text(&err));
	read_back(&m, &err);
	assert_string_equal(m.iface.name, "eth0");
	assert_bytes(&m.iface.mac, &q.i.mac);
	assert_int_equal(m.iface.mtu, 1400);
	assert_int_equal(m.iface.accept_ra, 0);
	assert_int_equal(m.iface.n_addresses, 3); /* and no link-local one that nobody asked for */
	for (int k = 0; k < 3; k++) {
		assert_bytes(&m.addresses[k]->address, &q.a[k].address);
		assert_bytes(&m.addresses[k]->peer, &q.a[k].peer);
		assert_int_equal(m.addresses[k]->prefix, q.a[k].prefix);
	}
	assert_int_equal(m.iface.n_routes, 4);
	for (int k = 0; k < 4; k++)
		assert_route(&m, &q.r[k]);
	assert_int_equal(m.iface.n_neighbours, 2);
	mirror_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_validate),
		cmocka_unit_test(test_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
