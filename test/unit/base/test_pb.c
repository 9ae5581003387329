#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/pb.h"
#include "base/ttrpc/codec.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/wkt.pb-c.h"

static void arena(void **state)
{
	cleanup_pb_arena struct pb_arena a;
	uint8_t *p, *last = NULL;

	pb_arena_init(&a, 10 * KIB);
	for (size_t i = 0; i < 640; i++) {
		p = pb_arena_alloc(&a, 1 + i % 16);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 16, 0);
		assert_ptr_not_equal(p, last);
		memset(p, 0xff, 1 + i % 16);
		last = p;
	}
	assert_int_equal(a.used, a.max);
	assert_null(pb_arena_alloc(&a, 1));
	assert_true(a.full);
	pb_arena_fini(&a);
	assert_int_equal(a.max, 10 * KIB);
	assert_null(pb_arena_alloc(&a, SIZE_MAX));
	assert_null(pb_arena_alloc(&a, SIZE_MAX - 7));
	assert_non_null(pb_arena_alloc(&a, 10 * KIB));
}

/* Two bytes on the wire, more than a hundred in memory: refused, not believed. */
static void amplification_is_bounded(void **state)
{
	cleanup_free uint8_t *bytes = malloc(TTRPC_MESSAGE_MAX);
	cleanup_pb_arena struct pb_arena a;
	ProtobufCMessage *m = NULL;

	for (size_t i = 0; i < TTRPC_MESSAGE_MAX; i += 2) {
		bytes[i] = 0x2a; /* metadata */
		bytes[i + 1] = 0;
	}
	pb_arena_init(&a, TTRPC_UNPACKED_MAX);
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, bytes, TTRPC_MESSAGE_MAX, &m),
			 -ENOBUFS);
	assert_null(m);
	assert_true(a.used <= a.max);
	pb_arena_fini(&a);
	/* The same arena serves a decent message. */
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, bytes, 2000, &m), 0);
	assert_int_equal(((Ttrpc__Request *)m)->n_metadata, 1000);
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, "\xff", 1, &m), -EBADMSG);
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, "\x0a\x05xx", 4, &m), -EBADMSG);
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, NULL, 0, &m), 0);
	assert_string_equal(((Ttrpc__Request *)m)->service, "");
}

static void copies(void **state)
{
	Agent__CreateSandboxRequest req = AGENT__CREATE_SANDBOX_REQUEST__INIT, *copy;
	Agent__CreateSandboxRequest__SysctlsEntry one =
		AGENT__CREATE_SANDBOX_REQUEST__SYSCTLS_ENTRY__INIT;
	Agent__CreateSandboxRequest__SysctlsEntry *sysctls[] = { &one, &one };
	char id[] = "pod", key[] = "a.b", value[] = "1";
	cleanup_free uint8_t *bytes = NULL;
	size_t len = 99;

	one.key = key;
	one.value = value;
	req.id = id;
	req.sysctls = sysctls;
	req.n_sysctls = 2;
	copy = (Agent__CreateSandboxRequest *)pb_clone(&req.base);
	assert_non_null(copy);
	memset(id, 'x', 3);
	memset(value, 'x', 1);
	assert_string_equal(copy->id, "pod");
	assert_int_equal(copy->n_sysctls, 2);
	assert_string_equal(copy->sysctls[1]->key, "a.b");
	assert_string_equal(copy->sysctls[1]->value, "1");
	agent__create_sandbox_request__free_unpacked(copy, NULL);
	/* An empty message has no bytes. */
	req = (Agent__CreateSandboxRequest)AGENT__CREATE_SANDBOX_REQUEST__INIT;
	bytes = pb_pack(&req.base, &len);
	assert_non_null(bytes);
	assert_int_equal(len, 0);
	copy = (Agent__CreateSandboxRequest *)pb_clone(&req.base);
	assert_non_null(copy);
	assert_string_equal(copy->id, "");
	agent__create_sandbox_request__free_unpacked(copy, NULL);
}

static void packed_bytes(void **state)
{
	Agent__StartFailure f = AGENT__START_FAILURE__INIT;
	cleanup_free uint8_t *bytes = NULL;
	size_t len;

	f.stage = (char *)"exec";
	bytes = pb_pack(&f.base, &len);
	assert_non_null(bytes);
	assert_int_equal(len, 6);
	assert_memory_equal(bytes,
			    "\x0a\x04"
			    "exec",
			    6);
}

static void any_types(void **state)
{
	static const struct {
		const char *url, *type;
	} t[] = {
		{ "type.googleapis.com/a.B", "a.B" },
		{ "a.B", "a.B" },
		{ "", "" },
		{ "type.googleapis.com/", "" },
		{ "other.example/a.B", "other.example/a.B" },
	};
	Wkt__Any any = WKT__ANY__INIT;

	assert_string_equal(pb_any_type(NULL), "");
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		any.type_url = (char *)t[i].url;
		assert_string_equal(pb_any_type(&any), t[i].type);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arena),     cmocka_unit_test(amplification_is_bounded),
		cmocka_unit_test(copies),    cmocka_unit_test(packed_bytes),
		cmocka_unit_test(any_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
