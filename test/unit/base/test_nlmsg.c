#include "test/lib/unit.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>

#include "base/net/nlmsg.h"

#define TYPE 40

static void test_round_trip(void **state)
{
	const uint32_t head = 7;
	struct nlattr_view t[8], inner[4];
	struct nlmsg_view v;
	struct nlmsg m;
	struct cur c;
	uint32_t n;
	size_t nest;

	nlmsg_begin(&m, TYPE, NLM_F_ACK, &head, sizeof(head));
	nlmsg_put(&m, 1, "abc", 3);
	nest = nlmsg_nest(&m, 5);
	nlmsg_put_u32(&m, 2, 77);
	nlmsg_end(&m, nest);
	nlmsg_put_str(&m, 3, "eth0");
	assert_false(m.full);
	c = cur_of(m.data, m.len);
	assert_true(nlmsg_next(&c, &v));
	assert_int_equal(v.type, TYPE);
	assert_int_equal(v.flags, NLM_F_ACK | NLM_F_REQUEST);
	assert_memory_equal(v.body, &head, sizeof(head));
	assert_int_equal(nlattrs_read(v.body + 4, v.n - 4, t, 8), 0);
	assert_int_equal(t[1].n, 3);
	assert_memory_equal(t[1].p, "abc", 3);
	assert_string_equal((const char *)t[3].p, "eth0");
	assert_null(t[2].p);
	assert_int_equal(nlattrs_read(t[5].p, t[5].n, inner, 4), 0);
	assert_true(nlattr_get(&inner[2], &n, sizeof(n)));
	assert_int_equal(n, 77);
	assert_false(nlattr_get(&inner[2], &n, 2)); /* another length */
	assert_false(nlattr_get(&inner[3], &n, sizeof(n)));
	/* A type that the table has no room for is skipped. */
	assert_int_equal(nlattrs_read(v.body + 4, v.n - 4, t, 2), 0);
	assert_int_equal(t[1].n, 3);
	assert_false(nlmsg_next(&c, &v));
	assert_false(c.bad);
}

static void test_full(void **state)
{
	static const uint8_t big[NLMSG_MAX];
	struct nlmsg m;
	size_t nest;

	nlmsg_begin(&m, TYPE, 0, NULL, 0);
	nlmsg_put(&m, 1, big, NLMSG_MAX - 16 - 4);
	assert_false(m.full);
	assert_int_equal(m.len, NLMSG_MAX);
	nest = nlmsg_nest(&m, 2);
	nlmsg_end(&m, nest);
	assert_true(m.full);
	assert_int_equal(m.len, NLMSG_MAX);
	nlmsg_begin(&m, TYPE, 0, NULL, 0);
	nlmsg_put(&m, 1, big, NLMSG_MAX);
	assert_true(m.full);
	/* What failed stays failed: no message with a hole. */
	nlmsg_put_u32(&m, 2, 1);
	assert_true(m.full);
	assert_int_equal(m.len, 16);
}

static void refuse_message(uint32_t len, size_t have)
{
	_Alignas(4) uint8_t data[64] = { 0 };
	struct cur c = cur_of(data, have);
	struct nlmsg_view v;

	memcpy(data, &len, sizeof(len));
	assert_false(nlmsg_next(&c, &v));
	assert_true(c.bad);
}

static void refuse_attr(uint16_t len, size_t have)
{
	_Alignas(4) uint8_t data[64] = { 0 };
	struct nlattr_view t[4];

	memcpy(data, &len, sizeof(len));
	assert_int_equal(nlattrs_read(data, have, t, 4), -EBADMSG);
}

static void test_malformed(void **state)
{
	refuse_message(16, 15); /* no whole header */
	refuse_message(0, 64);	/* would never end */
	refuse_message(15, 64);
	refuse_message(65, 64);
	refuse_message(UINT32_MAX, 64);
	refuse_attr(4, 3);
	refuse_attr(0, 64);
	refuse_attr(3, 64);
	refuse_attr(65, 64);
	refuse_attr(UINT16_MAX, 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
