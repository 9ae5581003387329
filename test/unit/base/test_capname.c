#include "test/lib/unit.h"

#include <errno.h>
#include <linux/capability.h>

#include "base/capname.h"
#include "base/compiler.h"

static void every_name(void **state)
{
	for (unsigned i = 0; i <= CAPNAME_LAST; i++) {
		assert_text(capname(i), "CAP_");
		assert_int_equal(capname_find(capname(i)), i);
		assert_int_equal(capname_find_loose(capname(i)), i);
		assert_int_equal(capname_find_loose(capname(i) + 4), i);
	}
	assert_null(capname(CAPNAME_LAST + 1));
	assert_int_equal(CAPNAME_ALL, 0x1ffffffffffull);
	/* The kernel's numbers. */
	assert_int_equal(capname_find("CAP_CHOWN"), CAP_CHOWN);
	assert_int_equal(capname_find("CAP_SETPCAP"), CAP_SETPCAP);
	assert_int_equal(capname_find("CAP_NET_RAW"), CAP_NET_RAW);
	assert_int_equal(capname_find("CAP_SYS_ADMIN"), CAP_SYS_ADMIN);
	assert_int_equal(capname_find("CAP_SETFCAP"), CAP_SETFCAP);
	assert_int_equal(capname_find("CAP_AUDIT_READ"), CAP_AUDIT_READ);
	assert_int_equal(capname_find("CAP_CHECKPOINT_RESTORE"), CAP_CHECKPOINT_RESTORE);
}

static void the_two_forms(void **state)
{
	static const char *const loose[] = { "net_admin", "cap_net_admin", "Cap_Net_Admin",
					     "NET_ADMIN" };
	static const char *const none[] = { "",		"CAP_",	    "ALL",	"CAP_NET_ADMIN ",
					    "CAP_NET_", "CAP_CAP_", "NET-ADMIN" };

	for (size_t i = 0; i < ARRAY_SIZE(loose); i++) {
		assert_int_equal(capname_find_loose(loose[i]), CAP_NET_ADMIN);
		assert_int_equal(capname_find(loose[i]), -EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		assert_int_equal(capname_find_loose(none[i]), -EINVAL);
		assert_int_equal(capname_find(none[i]), -EINVAL);
	}
	assert_int_equal(capname_find(NULL), -EINVAL);
	assert_int_equal(capname_find_loose(NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_name),
		cmocka_unit_test(the_two_forms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
