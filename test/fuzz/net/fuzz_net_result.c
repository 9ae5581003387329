/* What a plug-in answers to ADD. */
#include <sys/socket.h>

#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/result.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_json json_t *j = NULL;
	cleanup_net_result struct net_result *res = NULL;
	char line[64];

	net_json_line(line, sizeof(line), (const char *)data, size);
	if (size > NET_RESULT_MAX || net_json_parse((const char *)data, size, &j, NULL) < 0 ||
	    net_result_parse(j, &res, NULL) < 0)
		return 0;
	fuzz_assert(res->n_interfaces <= NET_INTERFACES_MAX && res->n_ips <= NET_ADDRESSES_MAX &&
		    res->n_routes <= NET_ROUTES_MAX);
	for (size_t i = 0; i < res->n_ips; i++) {
		const struct net_ip *ip = &res->ips[i];

		fuzz_assert(ip->interface >= -1 && ip->interface < (int)res->n_interfaces);
		fuzz_assert(ip->address.prefix <= (ip->address.family == AF_INET ? 32 : 128));
		fuzz_assert(!ip->gateway.family || ip->gateway.family == ip->address.family);
	}
	/* In every version it is the same result. */
	for (int v = 0; v < CNI_VERSIONS; v++) {
		cleanup_net_result struct net_result *again = NULL;

		fuzz_assert(net_result_convert(j, (enum cni_version)v, NULL) == 0);
		fuzz_assert(net_result_parse(j, &again, NULL) == 0);
		fuzz_assert(again->n_ips == res->n_ips && again->n_routes == res->n_routes);
	}
	return 0;
}
