#include "vmm/dev/tap.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

#include "base/log.h"
#include "base/util.h"
#include "vmm/dev/net.h"

/* Linux 6.2; older headers do not have them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define USO_MAJOR 6
#define USO_MINOR 2

int tap_prepare(int fd, struct err *err)
{
	const short want = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	int len = TAP_HEADER_LEN, little = 1, r;
	struct ifreq q = { 0 };

	if (ioctl(fd, TUNGETIFF, &q) < 0)
		return err_set(err, -EINVAL, "not a tap");
	if ((q.ifr_flags & want) != want)
		return err_set(err, -EINVAL, "tap %.*s: wanted IFF_TAP, IFF_NO_PI, IFF_VNET_HDR",
			       IFNAMSIZ, q.ifr_name);
	if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0 || ioctl(fd, TUNSETVNETLE, &little) < 0)
		return err_errno(err, -errno, "tap %.*s: header", IFNAMSIZ, q.ifr_name);
	r = fd_set_nonblock(fd, true);
	return r < 0 ? err_errno(err, r, "tap") : 0;
}

void tap_set_offloads(int fd, uint64_t features)
{
	unsigned want = 0;

	if (features & NET_F_GUEST_CSUM) {
		want = TUN_F_CSUM;
		want |= features & NET_F_GUEST_TSO4 ? TUN_F_TSO4 : 0;
		want |= features & NET_F_GUEST_TSO6 ? TUN_F_TSO6 : 0;
		/* ECN alone is none. */
		want |= (features & NET_F_GUEST_ECN) && want != TUN_F_CSUM ? TUN_F_TSO_ECN : 0;
		if ((features & NET_F_GUEST_USO) == NET_F_GUEST_USO)
			want |= TUN_F_USO4 | TUN_F_USO6;
	}
	if (ioctl(fd, TUNSETOFFLOAD, want) < 0 &&
	    ioctl(fd, TUNSETOFFLOAD, want & ~(TUN_F_USO4 | TUN_F_USO6)) < 0)
		log_debug("net: the tap takes no offloads", "err", strerror(errno));
}

bool tap_knows_uso(void)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2)
		return false;
	return major > USO_MAJOR || (major == USO_MAJOR && minor >= USO_MINOR);
}
