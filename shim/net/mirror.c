#include "shim/net/mirror.h"

#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#define MAC_LEN 6
#define TABLE_LEN 64 /* attributes that are looked at: all have smaller numbers */

void mirror_init(struct mirror *m)
{
	memset(m, 0, sizeof(*m));
	pb_arena_init(&m->arena, MIRROR_MEMORY_MAX);
	agent__interface__init(&m->iface);
}

void mirror_fini(struct mirror *m)
{
	pb_arena_fini(&m->arena);
}

/* What the type begins with, and the attributes behind it. */
static int open_message(const struct nlmsg_view *v, void *head, size_t n,
			struct nlattr_view table[TABLE_LEN])
{
	struct cur c = cur_of(v->body, v->n);
	size_t pad = NLMSG_ALIGN(n) - n;

	if (!cur_copy(&c, head, n) || !cur_bytes(&c, MIN_OF(pad, cur_left(&c))))
		return -EBADMSG;
	return nlattrs_read(c.p, cur_left(&c), table, TABLE_LEN);
}

static int copy_bytes(struct mirror *m, const struct nlattr_view *a, ProtobufCBinaryData *ret)
{
	ret->len = 0;
	ret->data = NULL;
	if (!a->p || a->n == 0)
		return 0;
	ret->data = pb_arena_alloc(&m->arena, a->n);
	if (!ret->data)
		return -ENOMEM;
	memcpy(ret->data, a->p, a->n);
	ret->len = a->n;
	return 0;
}

static size_t ip_len(unsigned family)
{
	return family == AF_INET ? 4 : 16;
}

/* An IP address of the family; absent is fine. */
static int copy_ip(struct mirror *m, const struct nlattr_view *a, unsigned family,
		   ProtobufCBinaryData *ret)
{
	if (a->p && a->n != ip_len(family))
		return -EBADMSG;
	return copy_bytes(m, a, ret);
}

static bool is_ip(unsigned family)
{
	return family == AF_INET || family == AF_INET6;
}

static uint32_t u32_or(const struct nlattr_view *a, uint32_t otherwise)
{
	uint32_t v;

	return nlattr_get(a, &v, sizeof(v)) ? v : otherwise;
}

/* ---- the interface ---- */

/* Whether it listens to routers: IFLA_AF_SPEC / AF_INET6 / IFLA_INET6_CONF. */
static uint32_t accept_ra(const struct nlattr_view *spec)
{
	struct nlattr_view families[AF_INET6 + 1], v6[IFLA_INET6_MAX + 1];
	const struct nlattr_view *conf = &v6[IFLA_INET6_CONF];
	int32_t value;

	if (!spec->p || nlattrs_read(spec->p, spec->n, families, ARRAY_SIZE(families)) < 0 ||
	    !families[AF_INET6].p ||
	    nlattrs_read(families[AF_INET6].p, families[AF_INET6].n, v6, ARRAY_SIZE(v6)) < 0 ||
	    !conf->p || conf->n < (DEVCONF_ACCEPT_RA + 1) * sizeof(value))
		return 0;
	memcpy(&value, conf->p + DEVCONF_ACCEPT_RA * sizeof(value), sizeof(value));
	return value > 0 && value <= 2 ? (uint32_t)value : 0;
}

static int take_link(struct mirror *m, const struct nlmsg_view *v)
{
	struct nlattr_view t[TABLE_LEN];
	const struct nlattr_view *name = &t[IFLA_IFNAME];
	struct ifinfomsg i;
	int r = open_message(v, &i, sizeof(i), t);

	if (r < 0)
		return err_errno(m->err, r, "an interface");
	if ((i.ifi_flags & IFF_LOOPBACK) || !(i.ifi_flags & IFF_UP))
		return 0;
	if (!name->p || name->n < 2 || name->n > sizeof(m->name) || name->p[name->n - 1] ||
	    i.ifi_index <= 0)
		return err_set(m->err, -EBADMSG, "an interface without a name");
	if (i.ifi_type != ARPHRD_ETHER || t[IFLA_ADDRESS].n != MAC_LEN)
		return err_set(m->err, -ENOTSUP,
			       "interface %s of type %u: only Ethernet reaches into a VM", name->p,
			       i.ifi_type);
	if (m->ifindex)
		return err_set(m->err, -ENOTSUP,
			       "interfaces %s and %s: a pod's VM has one network card", m->name,
			       name->p);
	memcpy(m->name, name->p, name->n);
	m->ifindex = i.ifi_index;
	m->iface.name = m->name;
	m->iface.mtu = u32_or(&t[IFLA_MTU], 1500);
	m->iface.accept_ra = accept_ra(&t[IFLA_AF_SPEC]);
	r = copy_bytes(m, &t[IFLA_ADDRESS], &m->iface.mac);
	return r < 0 ? err_errno(m->err, r, "interface %s", m->name) : 0;
}

/* ---- addresses ---- */

static int take_address(struct mirror *m, const struct nlmsg_view *v)
{
	struct nlattr_view t[TABLE_LEN];
	const struct nlattr_view *local = &t[IFA_LOCAL], *address = &t[IFA_ADDRESS];
	struct ifaddrmsg i;
	Agent__Address *a;
	uint32_t flags;
	int r = open_message(v, &i, sizeof(i), t);

	if (r < 0)
		return err_errno(m->err, r, "an address");
	flags = u32_or(&t[IFA_FLAGS], i.ifa_flags);
	if (!m->ifindex || i.ifa_index != (unsigned)m->ifindex || !is_ip(i.ifa_family) ||
	    !(flags & IFA_F_PERMANENT))
		return 0;
	if (flags & IFA_F_DADFAILED)
		return err_set(m->err, -EADDRINUSE, "an address of %s is in use elsewhere",
			       m->name);
	if (m->iface.n_addresses == POD_ADDRESSES_MAX)
		return err_set(m->err, -E2BIG, "interface %s: more than %u addresses", m->name,
			       POD_ADDRESSES_MAX);
	a = pb_arena_alloc(&m->arena, sizeof(*a));
	if (!a)
		return err_nomem(m->err);
	agent__address__init(a);
	a->prefix = i.ifa_prefixlen;
	a->scope = i.ifa_scope;
	a->no_prefix_route = !!(flags & IFA_F_NOPREFIXROUTE);
	a->metric = u32_or(&t[IFA_RT_PRIORITY], 0);
	r = copy_ip(m, local->p ? local : address, i.ifa_family, &a->address);
	if (r == 0 && local->p && address->p &&
	    (local->n != address->n || memcmp(local->p, address->p, local->n) != 0))
		r = copy_ip(m, address, i.ifa_family, &a->peer);
	if (r == 0)
		r = copy_ip(m, &t[IFA_BROADCAST], i.ifa_family, &a->broadcast);
	if (r == 0 && (!a->address.len || a->prefix > 8 * ip_len(i.ifa_family)))
		r = -EBADMSG;
	if (r < 0)
		return err_errno(m->err, r, "an address of %s", m->name);
	m->addresses[m->iface.n_addresses++] = a;
	return 0;
}

/* ---- routes ---- */

/* NULL, or what of the route the guest cannot have. */
static const char *unsupported(const struct mirror *m, const struct rtmsg *i,
			       const struct nlattr_view *t)
{
	bool drops = i->rtm_type == RTN_BLACKHOLE || i->rtm_type == RTN_UNREACHABLE ||
		     i->rtm_type == RTN_PROHIBIT;

	if (u32_or(&t[RTA_TABLE], i->rtm_table) != RT_TABLE_MAIN)
		return "a table of its own";
	if (i->rtm_type != RTN_UNICAST && !drops)
		return "an unusual type";
	if (t[RTA_MULTIPATH].p)
		return "several gateways";
	if (t[RTA_ENCAP].p || t[RTA_VIA].p)
		return "an encapsulation";
	if (i->rtm_tos || i->rtm_src_len)
		return "a condition on source or type of service";
	if (!drops && u32_or(&t[RTA_OIF], 0) != (uint32_t)m->ifindex)
		return "another interface";
	return NULL;
}

static void take_metrics(const struct nlattr_view *metrics, Agent__Route *route)
{
	struct nlattr_view t[RTAX_MAX + 1];

	if (!metrics->p || nlattrs_read(metrics->p, metrics->n, t, ARRAY_SIZE(t)) < 0)
		return;
	route->mtu = u32_or(&t[RTAX_MTU], 0);
	route->advmss = u32_or(&t[RTAX_ADVMSS], 0);
}

static int fill_route(struct mirror *m, const struct rtmsg *i, const struct nlattr_view *t,
		      Agent__Route *route)
{
	int r;

	agent__route__init(route);
	route->v6 = i->rtm_family == AF_INET6;
	route->prefix = i->rtm_dst_len;
	route->type = i->rtm_type;
	route->scope = i->rtm_scope;
	route->protocol = i->rtm_protocol;
	route->metric = u32_or(&t[RTA_PRIORITY], 0);
	route->on_link = !!(i->rtm_flags & RTNH_F_ONLINK);
	take_metrics(&t[RTA_METRICS], route);
	r = copy_ip(m, &t[RTA_DST], i->rtm_family, &route->destination);
	if (r == 0)
		r = copy_ip(m, &t[RTA_GATEWAY], i->rtm_family, &route->gateway);
	if (r == 0)
		r = copy_ip(m, &t[RTA_PREFSRC], i->rtm_family, &route->source);
	if (r == 0 && (route->prefix > 8 * ip_len(i->rtm_family) ||
		       (route->prefix && !route->destination.len)))
		r = -EBADMSG;
	return r;
}

static int take_route(struct mirror *m, const struct nlmsg_view *v)
{
	struct nlattr_view t[TABLE_LEN];
	Agent__Route *route;
	const char *what;
	struct rtmsg i;
	int r = open_message(v, &i, sizeof(i), t);

	if (r < 0)
		return err_errno(m->err, r, "a route");
	if (!m->ifindex || !is_ip(i.rtm_family) || (i.rtm_flags & RTM_F_CLONED) ||
	    u32_or(&t[RTA_TABLE], i.rtm_table) == RT_TABLE_LOCAL ||
	    i.rtm_protocol == RTPROT_KERNEL || i.rtm_protocol == RTPROT_RA ||
	    i.rtm_protocol == RTPROT_REDIRECT)
		return 0;
	what = unsupported(m, &i, t);
	if (what)
		return err_set(m->err, -ENOTSUP,
			       "a route of the pod's network namespace has %s: not supported",
			       what);
	if (m->iface.n_routes == POD_ROUTES_MAX)
		return err_set(m->err, -E2BIG, "more than %u routes", POD_ROUTES_MAX);
	route = pb_arena_alloc(&m->arena, sizeof(*route));
	if (!route)
		return err_nomem(m->err);
	r = fill_route(m, &i, t, route);
	if (r < 0)
		return err_errno(m->err, r, "a route");
	m->routes[m->iface.n_routes++] = route;
	return 0;
}

/* ---- neighbours ---- */

static int take_neighbour(struct mirror *m, const struct nlmsg_view *v)
{
	struct nlattr_view t[TABLE_LEN];
	Agent__Neighbour *n;
	struct ndmsg i;
	int r = open_message(v, &i, sizeof(i), t);

	if (r < 0)
		return err_errno(m->err, r, "a neighbour");
	if (!m->ifindex || i.ndm_ifindex != m->ifindex || !is_ip(i.ndm_family) ||
	    !(i.ndm_state & NUD_PERMANENT) || (i.ndm_flags & NTF_PROXY))
		return 0;
	if (m->iface.n_neighbours == POD_NEIGHBOURS_MAX)
		return err_set(m->err, -E2BIG, "more than %u permanent neighbours",
			       POD_NEIGHBOURS_MAX);
	n = pb_arena_alloc(&m->arena, sizeof(*n));
	if (!n)
		return err_nomem(m->err);
	agent__neighbour__init(n);
	r = copy_ip(m, &t[NDA_DST], i.ndm_family, &n->address);
	if (r == 0)
		r = copy_bytes(m, &t[NDA_LLADDR], &n->mac);
	if (r == 0 && (!n->address.len || n->mac.len != MAC_LEN))
		r = -EBADMSG;
	if (r < 0)
		return err_errno(m->err, r, "a neighbour");
	m->neighbours[m->iface.n_neighbours++] = n;
	return 0;
}

int mirror_take(const struct nlmsg_view *v, void *arg)
{
	struct mirror *m = arg;

	switch (v->type) {
	case RTM_NEWLINK:
		return take_link(m, v);
	case RTM_NEWADDR:
		return take_address(m, v);
	case RTM_NEWROUTE:
		return take_route(m, v);
	case RTM_NEWNEIGH:
		return take_neighbour(m, v);
	default:
		return 0;
	}
}

/* Routes through a gateway need the one to the gateway. The order of the others stays. */
static void sort_routes(struct mirror *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->iface.n_routes; i++) {
		Agent__Route *route = m->routes[i];

		if (route->gateway.len)
			continue;
		memmove(&m->routes[n + 1], &m->routes[n], (i - n) * sizeof(m->routes[0]));
		m->routes[n++] = route;
	}
}

void mirror_finish(struct mirror *m)
{
	sort_routes(m);
	m->iface.addresses = m->addresses;
	m->iface.routes = m->routes;
	m->iface.neighbours = m->neighbours;
}
