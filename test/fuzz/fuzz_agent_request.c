/*
 * What the host sends: the first byte chooses between the preamble of a stream and a request, which
 * is unpacked with the server's limit and validated. What passes must keep the promises that the
 * rest of the agent relies on.
 */
#include <limits.h>
#include <string.h>

#include "agent/limits.h"
#include "agent/rootfs/mountopt.h"
#include "agent/io/stream.h"
#include "agent/proc/rlimit.h"
#include "agent/validate.h"
#include "base/pb.h"
#include "test/fuzz/fuzz.h"

#define ARENA (16 * MIB)

static void check_process(const Agent__Process *p)
{
	fuzz_assert(p->n_args >= 1 && p->n_args <= PROCESS_ARGS_MAX && p->args[0][0]);
	fuzz_assert(p->n_env <= PROCESS_ARGS_MAX && strlen(p->cwd) < PATH_MAX);
	for (size_t i = 0; i < p->n_rlimits; i++)
		fuzz_assert(rlimit_of(p->rlimits[i]->type) >= 0);
}

static void check_container(const Agent__CreateContainerRequest *req)
{
	struct mount_opts o;

	fuzz_assert(id_valid(req->id) && req->rootfs &&
		    req->rootfs->n_lower <= CONTAINER_LOWERS_MAX);
	for (size_t i = 0; i < req->n_mounts; i++) {
		fuzz_assert(req->mounts[i]->destination[0] == '/');
		fuzz_assert(mount_opts_parse(req->mounts[i], &o, NULL) == 0);
		fuzz_assert(o.kind == MOUNT_BIND ? !!o.pod_file : !!o.fstype);
	}
	check_process(req->process);
}

static void check_all(int kind, const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const descs[] = {
		&agent__create_container_request__descriptor,
		&agent__exec_process_request__descriptor,
		&agent__create_sandbox_request__descriptor,
	};
	cleanup_pb_arena struct pb_arena arena;
	ProtobufCMessage *msg;
	struct err err = { 0 };

	pb_arena_init(&arena, ARENA);
	if (pb_unpack(&arena, descs[kind], data, size, &msg) < 0)
		return;
	if (kind == 0 && validate_container((const void *)msg, &err) == 0)
		check_container((const void *)msg);
	if (kind == 1 && validate_exec((const void *)msg, &err) == 0)
		check_process(((const Agent__ExecProcessRequest *)(const void *)msg)->process);
	if (kind == 2)
		(void)!validate_sandbox((const void *)msg, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t id;

	if (size == 0)
		return 0;
	if (data[0] % 4 < 3) {
		check_all(data[0] % 4, data + 1, size - 1);
	} else if (size >= 1 + STDIO_PREAMBLE && stdio_preamble(data + 1, &id)) {
		fuzz_assert(id != 0);
	}
	return 0;
}
