#include "image/proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"
#include "image/address.h"

#define MAX_ENTRY 300

/* IPv4 and IPv6 as 16 bytes. */
static bool parse_address(const char *s, struct in6_addr *ret, bool *ret_v4)
{
	struct in_addr v4;

	*ret_v4 = inet_pton(AF_INET, s, &v4) == 1;
	if (*ret_v4) {
		memset(ret, 0, sizeof(*ret));
		memset(ret->s6_addr + 10, 0xff, 2);
		memcpy(ret->s6_addr + 12, &v4, 4);
		return true;
	}
	return inet_pton(AF_INET6, s, ret) == 1;
}

static bool in_network(const char *host, char *network)
{
	char *slash = strchr(network, '/');
	struct in6_addr a, net;
	bool v4, net_v4;
	uint64_t bits;

	*slash = 0;
	if (!parse_address(host, &a, &v4) || !parse_address(network, &net, &net_v4) ||
	    v4 != net_v4 || str_to_u64(slash + 1, 0, v4 ? 32 : 128, &bits) < 0)
		return false;
	bits += v4 ? 96 : 0;
	for (unsigned k = 0; k < bits; k++)
		if ((a.s6_addr[k / 8] ^ net.s6_addr[k / 8]) & (0x80u >> k % 8))
			return false;
	return true;
}

static bool below(const char *host, const char *domain)
{
	size_t n = strlen(host), d = strlen(domain);

	return n > d + 1 && host[n - d - 1] == '.' && !strcasecmp(host + n - d, domain);
}

/* Cuts ":port" and brackets off; false when there is another port than ours. */
static bool strip_port(char **entry, unsigned port)
{
	char *e = *entry, *colon = NULL;
	uint64_t p;

	if (*e == '[') {
		char *end = strchr(e, ']');

		if (!end)
			return false;
		colon = end[1] == ':' ? end + 1 : NULL;
		*end = 0;
		*entry = e + 1;
	} else if (strchr(e, ':') == strrchr(e, ':')) {
		colon = strchr(e, ':'); /* more than one is an IPv6 address */
	}
	if (!colon)
		return true;
	if (str_to_u64(colon + 1, 1, 65535, &p) < 0 || p != port)
		return false;
	*colon = 0;
	return true;
}

static bool entry_matches(char *e, const char *host, unsigned port)
{
	struct in6_addr a, b;
	bool v4, v4b;

	if (str_eq(e, "*"))
		return true;
	if (strchr(e, '/'))
		return in_network(host, e);
	if (!strip_port(&e, port))
		return false;
	if (parse_address(e, &a, &v4))
		return parse_address(host, &b, &v4b) && !memcmp(&a, &b, sizeof(a));
	if (str_starts(e, "*."))
		e++;
	if (*e == '.')
		return below(host, e + 1);
	return !strcasecmp(e, host) || below(host, e);
}

bool proxy_bypassed(const char *no_proxy, const char *host, unsigned port)
{
	char entry[MAX_ENTRY];

	if (host_is_loopback(host) || str_eq(host, "::1"))
		return true;
	for (const char *p = no_proxy ? no_proxy : ""; *p;) {
		size_t n = strcspn(p, ", ");

		if (n && n < sizeof(entry)) {
			snprintf(entry, sizeof(entry), "%.*s", (int)n, p);
			if (entry_matches(entry, host, port))
				return true;
		}
		p += n;
		p += strspn(p, ", ");
	}
	return false;
}
