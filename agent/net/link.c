#include "agent/net/link.h"

#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define CREATE (NLM_F_CREATE | NLM_F_EXCL)

static int link_on_found(const struct nlmsg_view *v, void *arg)
{
	struct nlattr_view t[IFLA_IFNAME + 1];
	const struct nlattr_view *name = &t[IFLA_IFNAME];
	struct cur c = cur_of(v->body, v->n);
	struct link *l = arg;
	struct ifinfomsg i;

	if (v->type != RTM_NEWLINK || !cur_copy(&c, &i, sizeof(i)) ||
	    nlattrs_read(c.p, cur_left(&c), t, sizeof(t) / sizeof(t[0])) < 0)
		return -EBADMSG;
	if (l->index || i.ifi_type != ARPHRD_ETHER || !name->p || name->n == 0 ||
	    name->n > sizeof(l->name) || name->p[name->n - 1])
		return 0;
	l->index = i.ifi_index;
	memcpy(l->name, name->p, name->n);
	return 0;
}

int link_find(struct netlink *nl, struct link *ret)
{
	const struct ifinfomsg i = { 0 };
	struct link l = { 0 };
	struct nlmsg m;
	int r;

	nlmsg_begin(&m, RTM_GETLINK, 0, &i, sizeof(i));
	r = netlink_dump(nl, &m, link_on_found, &l);
	if (r == 0 && !l.index)
		r = -ENODEV;
	if (r == 0)
		*ret = l;
	return r;
}

static void put(struct nlmsg *m, uint16_t attr, const ProtobufCBinaryData *b)
{
	if (b->len)
		nlmsg_put(m, attr, b->data, b->len);
}

int link_configure(struct netlink *nl, struct link *l, const Agent__Interface *i)
{
	const struct ifinfomsg head = { .ifi_index = l->index };
	struct nlmsg m;
	int r;

	nlmsg_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
	if (strcmp(l->name, i->name) != 0)
		nlmsg_put_str(&m, IFLA_IFNAME, i->name);
	put(&m, IFLA_ADDRESS, &i->mac);
	nlmsg_put_u32(&m, IFLA_MTU, i->mtu);
	nlmsg_put_no_address(&m);
	r = netlink_do(nl, &m);
	if (r == 0)
		snprintf(l->name, sizeof(l->name), "%s", i->name);
	return r;
}

int link_up(struct netlink *nl, const struct link *l)
{
	const struct ifinfomsg head = { .ifi_index = l->index,
					.ifi_flags = IFF_UP,
					.ifi_change = IFF_UP };
	struct nlmsg m;

	nlmsg_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
	return netlink_do(nl, &m);
}

static unsigned char family_of(size_t len)
{
	return len == 4 ? AF_INET : AF_INET6;
}

int link_add_address(struct netlink *nl, const struct link *l, const Agent__Address *a)
{
	const struct ifaddrmsg head = { .ifa_family = family_of(a->address.len),
					.ifa_prefixlen = (unsigned char)a->prefix,
					.ifa_scope = (unsigned char)a->scope,
					.ifa_index = (unsigned)l->index };
	struct nlmsg m;

	nlmsg_begin(&m, RTM_NEWADDR, CREATE, &head, sizeof(head));
	put(&m, IFA_LOCAL, &a->address);
	put(&m, IFA_ADDRESS, a->peer.len ? &a->peer : &a->address);
	put(&m, IFA_BROADCAST, &a->broadcast);
	nlmsg_put_u32(&m, IFA_FLAGS, IFA_F_NODAD | (a->no_prefix_route ? IFA_F_NOPREFIXROUTE : 0u));
	if (a->metric)
		nlmsg_put_u32(&m, IFA_RT_PRIORITY, a->metric);
	return netlink_do(nl, &m);
}

int link_add_route(struct netlink *nl, const struct link *l, const Agent__Route *route)
{
	const struct rtmsg head = { .rtm_family = route->v6 ? AF_INET6 : AF_INET,
				    .rtm_dst_len = (unsigned char)route->prefix,
				    .rtm_table = RT_TABLE_MAIN,
				    .rtm_protocol = (unsigned char)route->protocol,
				    .rtm_scope = (unsigned char)route->scope,
				    .rtm_type = (unsigned char)route->type,
				    .rtm_flags = route->on_link ? RTNH_F_ONLINK : 0 };
	struct nlmsg m;
	size_t metrics;

	/* APPEND: IPv6 has several routes to one destination that differ in their gateways. */
	nlmsg_begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &head, sizeof(head));
	put(&m, RTA_DST, &route->destination);
	put(&m, RTA_GATEWAY, &route->gateway);
	put(&m, RTA_PREFSRC, &route->source);
	if (route->type == RTN_UNICAST)
		nlmsg_put_u32(&m, RTA_OIF, (uint32_t)l->index);
	if (route->metric)
		nlmsg_put_u32(&m, RTA_PRIORITY, route->metric);
	if (route->mtu || route->advmss) {
		metrics = nlmsg_nest(&m, RTA_METRICS);
		if (route->mtu)
			nlmsg_put_u32(&m, RTAX_MTU, route->mtu);
		if (route->advmss)
			nlmsg_put_u32(&m, RTAX_ADVMSS, route->advmss);
		nlmsg_end(&m, metrics);
	}
	return netlink_do(nl, &m);
}

int link_add_neighbour(struct netlink *nl, const struct link *l, const Agent__Neighbour *n)
{
	const struct ndmsg head = { .ndm_family = family_of(n->address.len),
				    .ndm_ifindex = l->index,
				    .ndm_state = NUD_PERMANENT };
	struct nlmsg m;

	nlmsg_begin(&m, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
	put(&m, NDA_DST, &n->address);
	put(&m, NDA_LLADDR, &n->mac);
	return netlink_do(nl, &m);
}
