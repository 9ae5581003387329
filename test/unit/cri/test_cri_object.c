/* Pods and containers as objects: the arrows between their states, and who holds them. */
#include "test/lib/aborts.h"

#include "base/util.h"
#include "cri/store/object.h"

/* ---- arrows ---- */

static void pod_arrows(void **state)
{
	static const enum pod_state legal[][2] = {
		{ POD_CREATING, POD_READY },
		{ POD_CREATING, POD_NOTREADY },
		{ POD_READY, POD_NOTREADY },
	};
	unsigned found = 0;

	for (unsigned from = 0; from < 40; from++) {
		for (unsigned to = 0; to < 40; to++)
			found += pod_state_may((enum pod_state)from, (enum pod_state)to);
	}
	assert_int_equal(found, ARRAY_SIZE(legal));
	for (size_t i = 0; i < ARRAY_SIZE(legal); i++)
		assert_true(pod_state_may(legal[i][0], legal[i][1]));
}

static void container_arrows(void **state)
{
	static const enum container_state legal[][2] = {
		{ CONTAINER_CREATING, CONTAINER_CREATED },
		{ CONTAINER_CREATED, CONTAINER_RUNNING },
		{ CONTAINER_CREATED, CONTAINER_EXITED },
		{ CONTAINER_RUNNING, CONTAINER_EXITED },
	};
	unsigned found = 0;

	for (unsigned from = 0; from < 40; from++) {
		for (unsigned to = 0; to < 40; to++)
			found += container_state_may((enum container_state)from,
						     (enum container_state)to);
	}
	assert_int_equal(found, ARRAY_SIZE(legal));
	for (size_t i = 0; i < ARRAY_SIZE(legal); i++)
		assert_true(container_state_may(legal[i][0], legal[i][1]));
}

/* ---- what only a bug can do ends the process ---- */

static void back_to_ready(void *arg)
{
	struct pod *p = pod_new();

	pod_state_set(p, POD_READY);
	pod_state_set(p, POD_NOTREADY);
	pod_state_set(p, POD_READY);
}

static void run_twice(void *arg)
{
	struct container *c = container_new();

	container_state_set(c, CONTAINER_CREATED);
	container_state_set(c, CONTAINER_RUNNING);
	container_state_set(c, CONTAINER_RUNNING);
}

static void pod_with_containers(void *arg)
{
	struct pod *p = pod_new();
	struct container *c = container_new();

	TAILQ_INSERT_TAIL(&p->containers, c, link);
	pod_unref(p);
}

static void bugs_abort(void **state)
{
	assert_aborts(back_to_ready, NULL, "pod_state_may(p->state, to)");
	assert_aborts(run_twice, NULL, "container_state_may(c->state, to)");
	assert_aborts(pod_with_containers, NULL, "TAILQ_EMPTY");
}

/* ---- references ---- */

static void references(void **state)
{
	struct pod *p = pod_new();
	struct container *c = container_new();

	assert_int_equal(p->refs, 1);
	c->pod = pod_ref(p);
	assert_int_equal(p->refs, 2);
	assert_ptr_equal(container_ref(c), c);
	container_unref(c);
	assert_int_equal(p->refs, 2);
	container_unref(c); /* the last one lets go of the pod */
	assert_int_equal(p->refs, 1);
	pod_unref(p);
	pod_unref(NULL);
	container_unref(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pod_arrows),
		cmocka_unit_test(container_arrows),
		cmocka_unit_test(bugs_abort),
		cmocka_unit_test(references),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
