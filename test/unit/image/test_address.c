/* How private a place is, in each form in which an address can be written, and who may send us
 * where. */
#include "test/lib/unit.h"

#include "base/util.h"
#include "image/address.h"

#define PUB ADDRESS_PUBLIC
#define PRIV ADDRESS_PRIVATE
#define LINK ADDRESS_LINK
#define LOOP ADDRESS_LOOPBACK
#define META ADDRESS_METADATA

struct case_of {
	const char *ip;
	enum address_kind kind;
};

static void check_all(const struct case_of *v, size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (address_kind(v[k].ip) != v[k].kind)
			fail_msg("%s is %s", v[k].ip, address_kind_text(address_kind(v[k].ip)));
}

static void plain_addresses(void **state)
{
	static const struct case_of v[] = {
		{ "1.1.1.1", PUB },
		{ "192.0.2.1", PUB },
		{ "9.255.255.255", PUB },
		{ "11.0.0.0", PUB },
		{ "172.15.255.255", PUB },
		{ "172.32.0.0", PUB },
		{ "100.63.255.255", PUB },
		{ "100.128.0.0", PUB },
		{ "168.63.129.17", PUB },
		{ "2606:4700::1", PUB },
		{ "2001:db8::1", PUB },
		{ "10.0.0.1", PRIV },
		{ "10.255.255.255", PRIV },
		{ "172.16.0.1", PRIV },
		{ "172.31.255.255", PRIV },
		{ "192.168.1.1", PRIV },
		{ "100.64.0.1", PRIV },
		{ "100.127.255.255", PRIV },
		{ "192.0.0.1", PRIV },
		{ "198.19.0.1", PRIV },
		{ "240.0.0.1", PRIV },
		{ "fc00::1", PRIV },
		{ "fdff:ffff::1", PRIV },
		{ "fec0::1", PRIV },
		{ "169.254.1.1", LINK },
		{ "224.0.0.1", LINK },
		{ "255.255.255.255", LINK },
		{ "fe80::1", LINK },
		{ "fe80::1%eth0", LINK },
		{ "febf::1", LINK },
		{ "ff02::1", LINK },
		{ "127.0.0.1", LOOP },
		{ "127.255.0.1", LOOP },
		{ "0.0.0.0", LOOP },
		{ "0.1.2.3", LOOP },
		{ "::1", LOOP },
		{ "::", LOOP },
	};

	check_all(v, ARRAY_SIZE(v));
}

static void metadata_services(void **state)
{
	static const struct case_of v[] = {
		{ "169.254.169.254", META },	  { "169.254.170.2", META },
		{ "169.254.170.23", META },	  { "100.100.100.200", META },
		{ "168.63.129.16", META },	  { "192.0.0.192", META },
		{ "fd00:ec2::254", META },	  { "fd00:ec2::23", META },
		{ "fd20:ce::254", META },	  { "fe80::a9fe:a9fe", META },
		{ "fe80::a9fe:a9fe%eth0", META }, { "fd00:c1::a9fe:a9fe", META },
		{ "fd00:42::42", META },
	};

	check_all(v, ARRAY_SIZE(v));
}

/* a9fe:a9fe is 169.254.169.254, 7f00:1 is 127.0.0.1, a00:1 is 10.0.0.1, 808:808 is 8.8.8.8 */
static void ipv4_inside_of_ipv6(void **state)
{
	static const struct case_of v[] = {
		{ "::ffff:169.254.169.254", META },
		{ "::ffff:127.0.0.1", LOOP },
		{ "::ffff:10.0.0.1", PRIV },
		{ "::ffff:8.8.8.8", PUB },
		{ "::169.254.169.254", META },
		{ "::127.0.0.1", LOOP },
		{ "::ffff:0:169.254.169.254", META },
		{ "::ffff:0:10.0.0.1", PRIV },
		{ "64:ff9b::a9fe:a9fe", META },
		{ "64:ff9b::127.0.0.1", LOOP },
		{ "64:ff9b::10.0.0.1", PRIV },
		{ "64:ff9b::8.8.8.8", PUB },
		{ "64:ff9b:1::8.8.8.8", PRIV },
		{ "64:ff9b:1::a9fe:a9fe", META },
		{ "64:ff9b:1:a9fe:a9:fe00::", META },
		{ "64:ff9b:1:808:8:800::", PRIV },
		{ "64:ff9b:1:7f00:0:100::", LOOP },
		{ "2002:a9fe:a9fe::1", META },
		{ "2002:7f00:1::1", LOOP },
		{ "2002:a00:1::1", PRIV },
		{ "2002:808:808::1", PUB },
		/* Teredo: the server, and the other end with all bits turned */
		{ "2001:0:a9fe:a9fe::f7f7:f7f7", META },
		{ "2001:0:808:808::5601:5601", META },
		{ "2001:0:808:808::80ff:fffe", LOOP },
		{ "2001:0:808:808::f5ff:fffe", PRIV },
		{ "2001:0:808:808::f7f7:f7f7", PUB },
		/* ISATAP */
		{ "2606:4700::5efe:169.254.169.254", META },
		{ "2606:4700::200:5efe:10.0.0.1", PRIV },
	};

	check_all(v, ARRAY_SIZE(v));
}

static void what_is_no_address_is_trusted_least(void **state)
{
	static const struct case_of v[] = { { "", META },	 { "nonsense", META },
					    { "1.2.3", META },	 { "0x7f.0.0.1", META },
					    { "10.0.0.", META }, { "1:2", META } };

	check_all(v, ARRAY_SIZE(v));
}

static void hosts_of_urls(void **state)
{
	static const struct case_of v[] = {
		{ "registry.example", PUB },
		{ "localhost.example", PUB },
		{ "localhost", LOOP },
		{ "x.LOCALHOST", LOOP },
		{ "localhost.", LOOP },
		{ "127.0.0.1", LOOP },
		{ "127.0.0.1.", LOOP },
		{ "::1", LOOP },
		{ "10.1.2.3", PRIV },
		{ "metadata.google.internal", META },
		{ "Metadata.Google.Internal.", META },
		{ "64:ff9b::a9fe:a9fe", META },
		{ "2130706433", META }, /* 127.0.0.1, were it looked at so */
		{ "", META },
	};

	for (size_t k = 0; k < ARRAY_SIZE(v); k++)
		if (address_kind_of_host(v[k].ip) != v[k].kind)
			fail_msg("%s is %s", v[k].ip,
				 address_kind_text(address_kind_of_host(v[k].ip)));
}

static void never_to_a_more_private_place(void **state)
{
	/* rows: from; columns: to */
	static const bool may[5][5] = {
		[PUB] = { [PUB] = true },
		[PRIV] = { [PUB] = true, [PRIV] = true },
		[LINK] = { [PUB] = true, [PRIV] = true, [LINK] = true },
		[LOOP] = { [PUB] = true, [PRIV] = true, [LOOP] = true },
		[META] = { [PUB] = true, [PRIV] = true, [LOOP] = true },
	};

	for (int from = PUB; from <= META; from++)
		for (int to = PUB; to <= META; to++)
			if (address_may_lead((enum address_kind)from, (enum address_kind)to) !=
			    may[from][to])
				fail_msg("from %d to %d", from, to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_addresses),
		cmocka_unit_test(metadata_services),
		cmocka_unit_test(ipv4_inside_of_ipv6),
		cmocka_unit_test(what_is_no_address_is_trusted_least),
		cmocka_unit_test(hosts_of_urls),
		cmocka_unit_test(never_to_a_more_private_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
