#include "base/rpc_code.h"

#include <errno.h>
#include <stddef.h>

#include "base/compiler.h"

static const struct {
	int code; /* -errno */
	enum rpc_code rpc;
} errno_table[] = {
	/* The first row of an rpc code is its way back. */
	{ 0, RPC_OK },
	{ -ECANCELED, RPC_CANCELLED },
	{ -EINVAL, RPC_INVALID_ARGUMENT },
	{ -E2BIG, RPC_INVALID_ARGUMENT },
	{ -ETIMEDOUT, RPC_DEADLINE_EXCEEDED },
	{ -ENOENT, RPC_NOT_FOUND },
	{ -ESRCH, RPC_NOT_FOUND },
	{ -EEXIST, RPC_ALREADY_EXISTS },
	{ -EPERM, RPC_PERMISSION_DENIED },
	{ -EACCES, RPC_PERMISSION_DENIED },
	{ -ENOBUFS, RPC_RESOURCE_EXHAUSTED },
	{ -ENOSPC, RPC_RESOURCE_EXHAUSTED },
	{ -ENOMEM, RPC_RESOURCE_EXHAUSTED },
	{ -EBUSY, RPC_FAILED_PRECONDITION },
	{ -EPROTO, RPC_FAILED_PRECONDITION },
	{ -ENOSYS, RPC_UNIMPLEMENTED },
	{ -EOPNOTSUPP, RPC_UNIMPLEMENTED },
	{ -ECONNRESET, RPC_UNAVAILABLE },
	{ -EPIPE, RPC_UNAVAILABLE },
	{ -ECONNREFUSED, RPC_UNAVAILABLE },
};

enum rpc_code rpc_code_of_errno(int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(errno_table); i++)
		if (errno_table[i].code == code)
			return errno_table[i].rpc;
	return RPC_UNKNOWN;
}

int rpc_code_to_errno(enum rpc_code code)
{
	for (size_t i = 0; i < ARRAY_SIZE(errno_table); i++)
		if (errno_table[i].rpc == code)
			return errno_table[i].code;
	return -EIO;
}
