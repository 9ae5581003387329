#include "image/address.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

/* ---- where an address is ---- */

struct prefix {
	const char *address;
	unsigned bits;
	enum address_kind kind;
};

/* The first that fits; none: public. */
static const struct prefix v4_prefixes[] = {
	/* AWS, Azure, Google, OpenStack and more; ECS and EKS; Alibaba; Azure; Oracle */
	{ "169.254.169.254", 32, ADDRESS_METADATA }, { "169.254.170.2", 32, ADDRESS_METADATA },
	{ "169.254.170.23", 32, ADDRESS_METADATA },  { "100.100.100.200", 32, ADDRESS_METADATA },
	{ "168.63.129.16", 32, ADDRESS_METADATA },   { "192.0.0.192", 32, ADDRESS_METADATA },
	{ "127.0.0.0", 8, ADDRESS_LOOPBACK },	     { "0.0.0.0", 8, ADDRESS_LOOPBACK },
	{ "169.254.0.0", 16, ADDRESS_LINK },	     { "224.0.0.0", 4, ADDRESS_LINK },
	{ "255.255.255.255", 32, ADDRESS_LINK },     { "10.0.0.0", 8, ADDRESS_PRIVATE },
	{ "172.16.0.0", 12, ADDRESS_PRIVATE },	     { "192.168.0.0", 16, ADDRESS_PRIVATE },
	{ "100.64.0.0", 10, ADDRESS_PRIVATE },	     { "192.0.0.0", 24, ADDRESS_PRIVATE },
	{ "198.18.0.0", 15, ADDRESS_PRIVATE },	     { "240.0.0.0", 4, ADDRESS_PRIVATE },
};

static const struct prefix v6_prefixes[] = {
	/* AWS, and EKS; Google; OpenStack; Oracle; Scaleway */
	{ "fd00:ec2::254", 128, ADDRESS_METADATA },
	{ "fd00:ec2::23", 128, ADDRESS_METADATA },
	{ "fd20:ce::254", 128, ADDRESS_METADATA },
	{ "fe80::a9fe:a9fe", 128, ADDRESS_METADATA },
	{ "fd00:c1::a9fe:a9fe", 128, ADDRESS_METADATA },
	{ "fd00:42::42", 128, ADDRESS_METADATA },
	{ "::", 127, ADDRESS_LOOPBACK }, /* and ::1 */
	{ "fe80::", 10, ADDRESS_LINK },
	{ "ff00::", 8, ADDRESS_LINK },
	{ "fc00::", 7, ADDRESS_PRIVATE },
	{ "fec0::", 10, ADDRESS_PRIVATE },
	{ "64:ff9b:1::", 48, ADDRESS_PRIVATE }, /* a network's own NAT64, RFC 8215 */
	{ "100::", 64, ADDRESS_PRIVATE },
};

/* IPv6 forms with an IPv4 address in them, to which the packets go in the end. */
static const struct embedded {
	const char *address;
	unsigned bits;
	unsigned char at[4]; /* its bytes */
	unsigned char flip;
	bool unless_zero; /* then the address is of another form */
} embedded[] = {
	{ "::ffff:0:0", 96, { 12, 13, 14, 15 }, 0 },   /* v4-mapped */
	{ "::", 96, { 12, 13, 14, 15 }, 0 },	       /* v4-compatible */
	{ "::ffff:0:0:0", 96, { 12, 13, 14, 15 }, 0 }, /* v4-translated, RFC 2765 */
	{ "64:ff9b::", 96, { 12, 13, 14, 15 }, 0 },    /* NAT64, RFC 6052 */
	/* the same with a /96 of one's own, whose end is not zero, */
	{ "64:ff9b:1::", 48, { 12, 13, 14, 15 }, 0, true },
	{ "64:ff9b:1::", 48, { 6, 7, 9, 10 }, 0, true }, /* or the /48 */
	{ "2002::", 16, { 2, 3, 4, 5 }, 0 },		 /* 6to4 */
	{ "2001::", 32, { 4, 5, 6, 7 }, 0 },		 /* Teredo: its server */
	{ "2001::", 32, { 12, 13, 14, 15 }, 0xff },	 /* and who is behind it */
};

static bool has_prefix(const unsigned char *a, const unsigned char *prefix, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return !memcmp(a, prefix, whole) &&
	       (!rest || (a[whole] ^ prefix[whole]) >> (8 - rest) == 0);
}

static enum address_kind look_up(int family, const unsigned char *a, const struct prefix *table,
				 size_t n)
{
	for (size_t k = 0; k < n; k++) {
		unsigned char prefix[16];

		if (inet_pton(family, table[k].address, prefix) == 1 &&
		    has_prefix(a, prefix, table[k].bits))
			return table[k].kind;
	}
	return ADDRESS_PUBLIC;
}

static enum address_kind v4_kind(const unsigned char a[4])
{
	return look_up(AF_INET, a, v4_prefixes, ARRAY_SIZE(v4_prefixes));
}

static bool is_isatap(const unsigned char a[16])
{
	return (a[8] & ~3) == 0 && a[9] == 0 && a[10] == 0x5e && a[11] == 0xfe;
}

static enum address_kind v6_kind(const unsigned char a[16])
{
	enum address_kind kind = look_up(AF_INET6, a, v6_prefixes, ARRAY_SIZE(v6_prefixes));

	if (is_isatap(a))
		kind = MAX_OF(kind, v4_kind(a + 12));
	for (size_t k = 0; k < ARRAY_SIZE(embedded); k++) {
		const struct embedded *e = &embedded[k];
		unsigned char prefix[16], v4[4];

		if (inet_pton(AF_INET6, e->address, prefix) != 1 || !has_prefix(a, prefix, e->bits))
			continue;
		for (size_t b = 0; b < sizeof(v4); b++)
			v4[b] = a[e->at[b]] ^ e->flip;
		if (e->unless_zero && !memcmp(v4, "\0\0\0", sizeof(v4)))
			continue;
		kind = MAX_OF(kind, v4_kind(v4));
	}
	return kind;
}

enum address_kind address_kind(const char *ip)
{
	unsigned char a[16];
	char text[INET6_ADDRSTRLEN];
	size_t len = strcspn(ip, "%"); /* the zone of a link-local address */

	if (len >= sizeof(text))
		return ADDRESS_METADATA;
	memcpy(text, ip, len);
	text[len] = 0;
	if (inet_pton(AF_INET, text, a) == 1)
		return v4_kind(a);
	/* Not an address: nothing to trust. */
	return inet_pton(AF_INET6, text, a) == 1 ? v6_kind(a) : ADDRESS_METADATA;
}

enum address_kind address_kind_of_host(const char *host)
{
	char name[256];
	size_t len = strlen(host);

	while (len && host[len - 1] == '.')
		len--;
	if (!len || len >= sizeof(name))
		return ADDRESS_METADATA;
	memcpy(name, host, len);
	name[len] = 0;
	if (strchr(name, ':') || strspn(name, "0123456789.") == len)
		return address_kind(name);
	if (!strcasecmp(name, "metadata.google.internal"))
		return ADDRESS_METADATA;
	return host_is_loopback(name) ? ADDRESS_LOOPBACK : ADDRESS_PUBLIC;
}

bool address_may_lead(enum address_kind from, enum address_kind to)
{
	if (to == ADDRESS_LINK)
		return from == ADDRESS_LINK;
	return to != ADDRESS_METADATA && to <= from;
}

const char *address_kind_text(enum address_kind kind)
{
	static const char *const texts[] = {
		[ADDRESS_PUBLIC] = "a public address",
		[ADDRESS_PRIVATE] = "an address of a private network",
		[ADDRESS_LINK] = "an address of this machine's link",
		[ADDRESS_LOOPBACK] = "an address of this machine",
		[ADDRESS_METADATA] = "an address of a cloud's metadata service",
	};

	return texts[kind];
}

/* ---- names ---- */

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
