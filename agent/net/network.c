#include "agent/net/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/net/link.h"
#include "agent/proc/sysctl.h"
#include "base/limits.h"

#define NAME_MAX_LEN 15u
#define MAC_LEN 6u
#define MTU_MIN 68u /* RFC 791 */
#define MTU_MAX 65535u

/* ---- what may be asked for ---- */

static bool is_ip(const ProtobufCBinaryData *b)
{
	return b->len == 4 || b->len == 16;
}

/* Of the same family as the address, or none. */
static bool fits(const ProtobufCBinaryData *b, size_t len)
{
	return b->len == 0 || b->len == len;
}

static bool is_name(const char *s)
{
	size_t n = strnlen(s, NAME_MAX_LEN + 1);

	if (n == 0 || n > NAME_MAX_LEN || strcmp(s, ".") == 0 || strcmp(s, "..") == 0 ||
	    strcmp(s, "lo") == 0)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || *s == '/' || *s == ':' || *s == '%')
			return false;
	return true;
}

static bool is_route(const Agent__Route *r)
{
	size_t len = r->v6 ? 16 : 4;

	return fits(&r->destination, len) && fits(&r->gateway, len) && fits(&r->source, len) &&
	       r->prefix <= 8 * len && (r->prefix == 0 || r->destination.len) &&
	       (r->type == RTN_UNICAST || r->type == RTN_BLACKHOLE || r->type == RTN_UNREACHABLE ||
		r->type == RTN_PROHIBIT) &&
	       r->scope <= UINT8_MAX && r->protocol <= UINT8_MAX;
}

static bool is_address(const Agent__Address *a)
{
	return is_ip(&a->address) && fits(&a->peer, a->address.len) &&
	       fits(&a->broadcast, a->address.len) && a->prefix <= 8 * a->address.len &&
	       a->scope <= UINT8_MAX;
}

int network_validate(const Agent__SetNetworkRequest *req, struct err *err)
{
	const Agent__Interface *i = req->interface;

	if (!i)
		return err_set(err, -EINVAL, "interface: missing");
	if (!is_name(i->name))
		return err_set(err, -EINVAL, "interface: \"%.40s\" cannot be its name", i->name);
	if (i->mac.len != MAC_LEN || (i->mac.data[0] & 1))
		return err_set(err, -EINVAL, "interface: not a MAC address");
	if (i->mtu < MTU_MIN || i->mtu > MTU_MAX)
		return err_set(err, -EINVAL, "interface: MTU %u", i->mtu);
	if (i->accept_ra > 2)
		return err_set(err, -EINVAL, "interface: accept_ra %u", i->accept_ra);
	if (i->n_addresses > POD_ADDRESSES_MAX || i->n_routes > POD_ROUTES_MAX ||
	    i->n_neighbours > POD_NEIGHBOURS_MAX)
		return err_set(err, -EINVAL, "interface: %zu addresses, %zu routes, %zu neighbours",
			       i->n_addresses, i->n_routes, i->n_neighbours);
	for (size_t k = 0; k < i->n_addresses; k++)
		if (!is_address(i->addresses[k]))
			return err_set(err, -EINVAL, "address %zu: malformed", k);
	for (size_t k = 0; k < i->n_routes; k++)
		if (!is_route(i->routes[k]))
			return err_set(err, -EINVAL, "route %zu: malformed", k);
	for (size_t k = 0; k < i->n_neighbours; k++)
		if (!is_ip(&i->neighbours[k]->address) || i->neighbours[k]->mac.len != MAC_LEN)
			return err_set(err, -EINVAL, "neighbour %zu: malformed", k);
	return 0;
}

/* ---- doing it ---- */

/* Before it is up, so that no router is heard that the pod must not believe. */
static int set_accept_ra(const Agent__Interface *i, struct err *err)
{
	char name[64], value[16];

	/* A dot in the name of an interface is not one between names. */
	snprintf(name, sizeof(name), "net/ipv6/conf/%s/accept_ra", i->name);
	snprintf(value, sizeof(value), "%u", i->accept_ra);
	return sysctl_write(name, value, err);
}

static const char *ip_text(const ProtobufCBinaryData *b, char text[INET6_ADDRSTRLEN])
{
	if (!is_ip(b) ||
	    !inet_ntop(b->len == 4 ? AF_INET : AF_INET6, b->data, text, INET6_ADDRSTRLEN))
		return "default";
	return text;
}

static int add_all(struct netlink *nl, const struct link *l, const Agent__Interface *i,
		   struct err *err)
{
	char text[INET6_ADDRSTRLEN];
	int r;

	for (size_t k = 0; k < i->n_addresses; k++) {
		r = link_add_address(nl, l, i->addresses[k]);
		if (r < 0)
			return err_errno(err, r, "address %s/%u",
					 ip_text(&i->addresses[k]->address, text),
					 i->addresses[k]->prefix);
	}
	for (size_t k = 0; k < i->n_neighbours; k++) {
		r = link_add_neighbour(nl, l, i->neighbours[k]);
		if (r < 0)
			return err_errno(err, r, "neighbour %s",
					 ip_text(&i->neighbours[k]->address, text));
	}
	for (size_t k = 0; k < i->n_routes; k++) {
		r = link_add_route(nl, l, i->routes[k]);
		if (r < 0)
			return err_errno(err, r, "route to %s/%u",
					 ip_text(&i->routes[k]->destination, text),
					 i->routes[k]->prefix);
	}
	return 0;
}

int network_set(const Agent__SetNetworkRequest *req, struct err *err)
{
	cleanup_netlink struct netlink nl = { .fd = -1 };
	const Agent__Interface *i = req->interface;
	struct link l;
	int r = netlink_open(&nl);

	if (r == 0)
		r = link_find(&nl, &l);
	if (r == 0)
		r = link_configure(&nl, &l, i);
	if (r < 0)
		return err_errno(err, r, "network: the card of %s", i->name);
	r = set_accept_ra(i, err);
	if (r == 0) {
		r = link_up(&nl, &l);
		if (r < 0)
			err_errno(err, r, "up");
	}
	if (r == 0)
		r = add_all(&nl, &l, i, err);
	return r < 0 ? err_wrap(err, r, "network: %s", i->name) : 0;
}
