#include "test/lib/unit.h"

#include <errno.h>

#include "base/compiler.h"
#include "base/rpc_code.h"

static void codes(void **state)
{
	static const struct {
		int code;
		enum rpc_code rpc;
		int back;
	} t[] = {
		{ 0, RPC_OK, 0 },
		{ -ENOENT, RPC_NOT_FOUND, -ENOENT },
		{ -ESRCH, RPC_NOT_FOUND, -ENOENT },
		{ -EEXIST, RPC_ALREADY_EXISTS, -EEXIST },
		{ -EINVAL, RPC_INVALID_ARGUMENT, -EINVAL },
		{ -EBUSY, RPC_FAILED_PRECONDITION, -EBUSY },
		{ -EPROTO, RPC_FAILED_PRECONDITION, -EBUSY },
		{ -ETIMEDOUT, RPC_DEADLINE_EXCEEDED, -ETIMEDOUT },
		{ -ENOSYS, RPC_UNIMPLEMENTED, -ENOSYS },
		{ -EOPNOTSUPP, RPC_UNIMPLEMENTED, -ENOSYS },
		{ -ENOSPC, RPC_RESOURCE_EXHAUSTED, -ENOBUFS },
		{ -ENOMEM, RPC_RESOURCE_EXHAUSTED, -ENOBUFS },
		{ -ENOBUFS, RPC_RESOURCE_EXHAUSTED, -ENOBUFS },
		{ -ECANCELED, RPC_CANCELLED, -ECANCELED },
		{ -ECONNRESET, RPC_UNAVAILABLE, -ECONNRESET },
		{ -EPIPE, RPC_UNAVAILABLE, -ECONNRESET },
		{ -ECONNREFUSED, RPC_UNAVAILABLE, -ECONNRESET },
		{ -EPERM, RPC_PERMISSION_DENIED, -EPERM },
		{ -EACCES, RPC_PERMISSION_DENIED, -EPERM },
		{ -EIO, RPC_UNKNOWN, -EIO },
		{ -EXDEV, RPC_UNKNOWN, -EIO },
		{ 5, RPC_UNKNOWN, -EIO },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(rpc_code_of_errno(t[i].code), t[i].rpc);
		assert_int_equal(rpc_code_to_errno(t[i].rpc), t[i].back);
	}
	assert_int_equal(rpc_code_to_errno(RPC_ABORTED), -EIO);
	assert_int_equal(rpc_code_to_errno(RPC_INTERNAL), -EIO);
	assert_int_equal(rpc_code_to_errno((enum rpc_code)12345), -EIO);
	assert_int_equal(rpc_code_to_errno((enum rpc_code) - 1), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(codes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
