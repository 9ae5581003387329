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

/* A configuration that is gone may just be written anew: no pod misses its network for that. */
bool pod_network_wanted(const struct huskd *d)
{
	return d->net && (net_configured(d->net) || str_eq(d->config.network_mode, "cni"));
}

static bool has_host_port(const Cri__PodSandboxConfig *c, int32_t *ret)
{
	for (size_t i = 0; i < c->n_port_mappings; i++) {
		*ret = c->port_mappings[i]->host_port;
		if (*ret)
			return true;
	}
	return false;
}

int pod_network_check(const struct huskd *d, const Cri__PodSandboxConfig *c, struct err *err)
{
	bool wanted = pod_network_wanted(d);
	struct net_status s = { 0 };
	int32_t port = 0;

	if (!wanted && !has_host_port(c, &port))
		return 0;
	if (d->net)
		net_status(d->net, &s);
	if (wanted)
		return s.network ? 0 : err_set(err, -EBUSY, "no network: %s", s.message);
	return err_set(err, -EBUSY, "host port %" PRId32 ": pods have no network here: %s", port,
		       d->net ? s.message : pod_network_off(d));
}
