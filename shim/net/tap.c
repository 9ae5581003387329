#include "shim/net/tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"

#define FILTER_PRIORITY 1u

/* ---- the tap ---- */

/* Without an address of its own it says nothing on the pod's network. */
static int set_up(struct netlink *nl, int index, uint32_t mtu)
{
	struct ifinfomsg i = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct nlmsg m;
	int r;

	nlmsg_begin(&m, RTM_NEWLINK, 0, &(struct ifinfomsg){ .ifi_index = index }, sizeof(i));
	nlmsg_put_no_address(&m);
	r = netlink_do(nl, &m);
	if (r < 0 && r != -EAFNOSUPPORT && r != -EOPNOTSUPP) /* a kernel without IPv6 */
		return r;
	nlmsg_begin(&m, RTM_NEWLINK, 0, &i, sizeof(i));
	nlmsg_put_u32(&m, IFLA_MTU, mtu);
	return netlink_do(nl, &m);
}

int tap_make(struct netlink *nl, uint32_t mtu, int *ret_fd, int *ret_index, struct err *err)
{
	cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct ifreq q = { .ifr_name = TAP_NAME, .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int index, r;

	if (fd < 0)
		return err_errno(err, -errno, "/dev/net/tun (is the module tun loaded?)");
	if (ioctl(fd, TUNSETIFF, &q) < 0)
		return err_errno(err, -errno, "make the tap " TAP_NAME);
	index = (int)if_nametoindex(TAP_NAME);
	r = index > 0 ? set_up(nl, index, mtu) : -errno;
	if (r < 0)
		return err_errno(err, r, "set up the tap " TAP_NAME);
	*ret_fd = take_fd(&fd);
	*ret_index = index;
	return 0;
}

/* ---- tc ---- */

static struct tcmsg filter_of(int index)
{
	return (struct tcmsg){
		.tcm_family = AF_UNSPEC,
		.tcm_ifindex = index,
		/* The block of both qdiscs: `ingress`, and `clsact` that was there before. */
		.tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
		.tcm_info = TC_H_MAKE(FILTER_PRIORITY << 16, htons(ETH_P_ALL)),
	};
}

/* One that is there already is as good. */
static int add_ingress(struct netlink *nl, int index)
{
	const struct tcmsg t = { .tcm_family = AF_UNSPEC,
				 .tcm_ifindex = index,
				 .tcm_handle = TC_H_MAKE(TC_H_INGRESS, 0),
				 .tcm_parent = TC_H_INGRESS };
	struct nlmsg m;
	int r;

	nlmsg_begin(&m, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &t, sizeof(t));
	nlmsg_put_str(&m, TCA_KIND, "ingress");
	r = netlink_do(nl, &m);
	return r == -EEXIST ? 0 : r;
}

/* Of a shim that died: it leads to a tap that is gone. */
static int remove_filter(struct netlink *nl, int index)
{
	const struct tcmsg t = filter_of(index);
	struct nlmsg m;
	int r;

	nlmsg_begin(&m, RTM_DELTFILTER, 0, &t, sizeof(t));
	r = netlink_do(nl, &m);
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

static void put_redirect(struct nlmsg *m, uint16_t actions, int to)
{
	const struct tc_mirred mirred = { .action = TC_ACT_STOLEN,
					  .eaction = TCA_EGRESS_REDIR,
					  .ifindex = (uint32_t)to };
	size_t all = nlmsg_nest(m, actions);
	size_t first = nlmsg_nest(m, 1); /* its place in the order */
	size_t options;

	nlmsg_put_str(m, TCA_ACT_KIND, "mirred");
	options = nlmsg_nest(m, TCA_ACT_OPTIONS);
	nlmsg_put(m, TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
	nlmsg_end(m, options);
	nlmsg_end(m, first);
	nlmsg_end(m, all);
}

static int add_matchall(struct netlink *nl, int from, int to)
{
	const struct tcmsg t = filter_of(from);
	struct nlmsg m;
	size_t options;

	nlmsg_begin(&m, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &t, sizeof(t));
	nlmsg_put_str(&m, TCA_KIND, "matchall");
	options = nlmsg_nest(&m, TCA_OPTIONS);
	put_redirect(&m, TCA_MATCHALL_ACT, to);
	nlmsg_end(&m, options);
	return netlink_do(nl, &m);
}

/* The same with one key of which no bit counts. */
static int add_u32(struct netlink *nl, int from, int to)
{
	const struct tcmsg t = filter_of(from);
	const struct tc_u32_sel sel = { .flags = TC_U32_TERMINAL, .nkeys = 1 };
	uint8_t all[sizeof(sel) + sizeof(struct tc_u32_key)] = { 0 };
	struct nlmsg m;
	size_t options;

	memcpy(all, &sel, sizeof(sel));
	nlmsg_begin(&m, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &t, sizeof(t));
	nlmsg_put_str(&m, TCA_KIND, "u32");
	options = nlmsg_nest(&m, TCA_OPTIONS);
	nlmsg_put(&m, TCA_U32_SEL, all, sizeof(all));
	put_redirect(&m, TCA_U32_ACT, to);
	nlmsg_end(&m, options);
	return netlink_do(nl, &m);
}

static int redirect(struct netlink *nl, int from, int to, struct err *err)
{
	int r = add_ingress(nl, from);

	if (r < 0)
		return err_errno(err, r, "tc: qdisc ingress");
	r = remove_filter(nl, from);
	if (r < 0)
		return err_errno(err, r, "tc: an old filter");
	r = add_matchall(nl, from, to);
	if (r == -ENOENT) /* not in this kernel */
		r = add_u32(nl, from, to);
	return r < 0 ? err_errno(err, r, "tc: redirect (needs cls_matchall or cls_u32, act_mirred)")
		     : 0;
}

int tap_redirect(struct netlink *nl, int a, int b, struct err *err)
{
	int r = redirect(nl, a, b, err);

	return r < 0 ? r : redirect(nl, b, a, err);
}
