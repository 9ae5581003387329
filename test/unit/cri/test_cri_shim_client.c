/* What a shim says of itself: the address that `start` prints, and the code of a start that
 * failed. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "cri/runtime/shim_client.h"

static void address(const char *text, const char *want)
{
	cleanup_free char *got = NULL;
	int r = shim_parse_address(text, strlen(text), &got, NULL);

	if (want) {
		assert_int_equal(r, 0);
		assert_string_equal(got, want);
	} else {
		assert_int_equal(r, -EPROTO);
	}
}

static void addresses(void **state)
{
	address("unix:///run/x.sock", "unix:///run/x.sock");
	address("unix:///run/x.sock\n", "unix:///run/x.sock");
	address("{\"version\":3,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}\n", "unix:///a");
	address("{\"version\":2,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}", "unix:///a");
	address("{\"version\":4,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}", NULL);
	address("{\"version\":3,\"address\":\"unix:///a\",\"protocol\":\"grpc\"}", NULL);
	address("{\"version\":3}", NULL);
	address("{\"version\":3,", NULL);
	address("tcp://1.2.3.4", NULL);
	address("", NULL);
}

static int exit_code(const char *type, uint32_t code, size_t cut)
{
	Shim__StartError e = SHIM__START_ERROR__INIT;
	struct ttrpc_result res = { .detail_type = type };
	uint8_t buf[64];

	e.stage = (char *)"exec";
	e.exit_code = code;
	res.detail = buf;
	res.detail_len = shim__start_error__pack(&e, buf) - cut;
	return shim_start_exit_code(&res);
}

static void exit_codes(void **state)
{
	assert_int_equal(exit_code("husk.shim.v1.StartError", 126, 0), 126);
	assert_int_equal(exit_code("husk.shim.v1.StartError", 127, 0), 127);
	assert_int_equal(exit_code("husk.shim.v1.StartError", 128, 0), 128);
	assert_int_equal(exit_code("husk.shim.v1.StartError", 0, 0), 0);
	assert_int_equal(exit_code("husk.shim.v1.StartError", 129, 0), 0);
	assert_int_equal(exit_code("husk.shim.v1.StartError", 127, 1), 0);
	assert_int_equal(exit_code("another", 127, 0), 0);
	assert_int_equal(exit_code("", 127, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses),
		cmocka_unit_test(exit_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
