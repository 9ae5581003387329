/* What the shim serves: every method of every service, with one table for task v2 and v3. */
#include "test/lib/serves.h"

#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "shim/service/service.h"

static void every_method(void **state)
{
	const struct ttrpc_service services[] = {
		{ &task_v2__task__descriptor, task_methods, NULL },
		{ &task_v3__task__descriptor, task_methods, NULL },
		{ &sandbox__sandbox__descriptor, sandbox_methods, NULL },
		{ &shim__shim__descriptor, husk_methods, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(services); i++)
		assert_serves_all(&services[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_method) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
