#include "image/address.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

enum address_kind address_kind(const char *ip)
{
	struct in6_addr v6;
	struct in_addr v4;
	uint32_t a = 0;

	if (inet_pton(AF_INET, ip, &v4) == 1) {
		a = ntohl(v4.s_addr);
	} else if (inet_pton(AF_INET6, ip, &v6) != 1) {
		return ADDRESS_LINK; /* not an address: nothing to trust */
	} else if (IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6)) {
		return ADDRESS_LOOPBACK;
	} else if (IN6_IS_ADDR_V4MAPPED(&v6) || IN6_IS_ADDR_V4COMPAT(&v6)) {
		memcpy(&v4, v6.s6_addr + 12, 4);
		a = ntohl(v4.s_addr);
	} else {
		return IN6_IS_ADDR_LINKLOCAL(&v6) ? ADDRESS_LINK : ADDRESS_ELSEWHERE;
	}
	if (a >> 24 == 127 || a >> 24 == 0)
		return ADDRESS_LOOPBACK;
	return a >> 16 == 0xa9fe ? ADDRESS_LINK : ADDRESS_ELSEWHERE;
}

bool host_is_loopback(const char *host)
{
	char name[256];
	const char *start = host, *colon;
	size_t len = strlen(host);
	struct in6_addr v6;
	struct in_addr v4;

	if (*host == '[') {
		start++;
		len = strcspn(start, "]");
	} else if ((colon = strchr(host, ':'))) {
		len = (size_t)(colon - host);
	}
	if (!len || len >= sizeof(name))
		return false;
	memcpy(name, start, len);
	name[len] = 0;
	if (!strcasecmp(name, "localhost") ||
	    (len > 10 && !strcasecmp(name + len - 10, ".localhost")))
		return true;
	if (inet_pton(AF_INET, name, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
