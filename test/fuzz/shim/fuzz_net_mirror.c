/*
 * What the kernel says of a pod's network namespace: any messages of rtnetlink, one after the
 * other. What comes out keeps the promises of agent.proto.
 */
#include "test/fuzz/fuzz.h"

#include "shim/net/mirror.h"

static bool is_ip(const ProtobufCBinaryData *b, bool may_be_absent)
{
	return b->len == 4 || b->len == 16 || (may_be_absent && b->len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct mirror m;
	struct cur c = cur_of(data, size);
	const Agent__Interface *i = &m.iface;
	struct err err = { 0 };
	struct nlmsg_view v;
	bool direct = true;
	int r = 0;

	mirror_init(&m);
	m.err = &err;
	while (r == 0 && nlmsg_next(&c, &v))
		r = mirror_take(&v, &m);
	fuzz_assert(r <= 0 && (r == 0 || err.code == r));
	mirror_finish(&m);
	fuzz_assert(!m.ifindex || (i->mac.len == 6 && strnlen(i->name, 16) < 16) || r < 0);
	for (size_t k = 0; k < i->n_addresses; k++)
		fuzz_assert(is_ip(&i->addresses[k]->address, false) &&
			    is_ip(&i->addresses[k]->peer, true) &&
			    i->addresses[k]->prefix <= 8 * i->addresses[k]->address.len);
	for (size_t k = 0; k < i->n_routes; k++) {
		const Agent__Route *route = i->routes[k];

		fuzz_assert(is_ip(&route->destination, true) && is_ip(&route->gateway, true));
		fuzz_assert(direct || route->gateway.len);
		direct = !route->gateway.len;
	}
	for (size_t k = 0; k < i->n_neighbours; k++)
		fuzz_assert(is_ip(&i->neighbours[k]->address, false) &&
			    i->neighbours[k]->mac.len == 6);
	mirror_fini(&m);
	return 0;
}
