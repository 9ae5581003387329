#include "cri/runtime/pod_network.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/util.h"
#include "cri/huskd.h"
#include "cri/net/net.h"

const char *pod_network_off(const struct huskd *d)
{
	return str_eq(d->config.network_mode, "none")
		       ? "network.mode is none"
		       : "networks could not be prepared, see the log of huskd";
}

static bool has_network(const struct huskd *d, struct net_status *s)
{
	*s = (struct net_status){ 0 };
	if (d->net)
		net_status(d->net, s);
	else
		(void)snprintf(s->message, sizeof(s->message), "%s", pod_network_off(d));
	/* One that is gone may just be written anew: no pod misses its network for that. */
	return s->network || s->configured || (d->net && str_eq(d->config.network_mode, "cni"));
}

bool pod_network_wanted(const struct huskd *d)
{
	struct net_status s;

	return has_network(d, &s);
}

int pod_network_check(const struct huskd *d, const Cri__PodSandboxConfig *c, struct err *err)
{
	struct net_status s;

	if (has_network(d, &s))
		return s.network ? 0 : err_set(err, -EBUSY, "no network: %s", s.message);
	for (size_t i = 0; i < c->n_port_mappings; i++) {
		if (c->port_mappings[i]->host_port)
			return err_set(err, -EBUSY,
				       "host port %" PRId32 ": pods have no network here: %s",
				       c->port_mappings[i]->host_port, s.message);
	}
	return 0;
}
