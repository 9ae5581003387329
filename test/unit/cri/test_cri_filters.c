/* Which pods and containers a list call asks for, and the states that CRI shows. */
#include "test/lib/unit.h"

#include "base/util.h"
#include "cri/runtime/filters.h"

#define POD_A "aaaa0000000000000000000000000000000000000000000000000000000000aa"
#define POD_B "bbbb0000000000000000000000000000000000000000000000000000000000bb"
#define CONTAINER_C "cccc0000000000000000000000000000000000000000000000000000000000cc"

struct fixture {
	Cri__PodSandboxConfig config_a, config_b;
	Cri__PodSandboxConfig__LabelsEntry app_a, app_b, *labels_a[1], *labels_b[1];
	Cri__ContainerConfig config_c;
	struct pod a, b;
	struct container c;
};

static void make(struct fixture *f)
{
	*f = (struct fixture){
		.config_a = CRI__POD_SANDBOX_CONFIG__INIT,
		.config_b = CRI__POD_SANDBOX_CONFIG__INIT,
		.app_a = CRI__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT,
		.app_b = CRI__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT,
		.config_c = CRI__CONTAINER_CONFIG__INIT,
		.a = { .id = POD_A, .state = POD_READY },
		.b = { .id = POD_B, .state = POD_NOTREADY },
		.c = { .id = CONTAINER_C, .state = CONTAINER_CREATED },
	};
	f->app_a.key = f->app_b.key = (char *)"app";
	f->app_a.value = (char *)"a";
	f->app_b.value = (char *)"b";
	f->labels_a[0] = &f->app_a;
	f->labels_b[0] = &f->app_b;
	f->config_a.labels = f->labels_a;
	f->config_b.labels = f->labels_b;
	f->config_a.n_labels = f->config_b.n_labels = 1;
	f->a.config = &f->config_a;
	f->b.config = &f->config_b;
	f->c.config = &f->config_c;
	f->c.pod = &f->a;
}

static void pods(void **state)
{
	Cri__PodSandboxFilter filter = CRI__POD_SANDBOX_FILTER__INIT;
	Cri__PodSandboxStateValue ready = CRI__POD_SANDBOX_STATE_VALUE__INIT;
	struct fixture f;

	make(&f);
	assert_true(filter_pod(NULL, &f.a));
	assert_true(filter_pod(&filter, &f.a));
	filter.id = (char *)"aaaa";
	assert_true(filter_pod(&filter, &f.a));
	assert_false(filter_pod(&filter, &f.b));
	filter.state = &ready; /* all conditions are ANDed */
	assert_true(filter_pod(&filter, &f.a));
	f.a.state = POD_NOTREADY;
	assert_false(filter_pod(&filter, &f.a));
	ready.state = CRI__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
	assert_true(filter_pod(&filter, &f.a));
	f.a.state = POD_CREATING; /* in no list, whatever is asked */
	assert_false(filter_pod(NULL, &f.a));
	assert_false(filter_pod(&filter, &f.a));
}

static void labels(void **state)
{
	Cri__PodSandboxFilter filter = CRI__POD_SANDBOX_FILTER__INIT;
	Cri__PodSandboxFilter__LabelSelectorEntry
		want = CRI__POD_SANDBOX_FILTER__LABEL_SELECTOR_ENTRY__INIT,
		more = CRI__POD_SANDBOX_FILTER__LABEL_SELECTOR_ENTRY__INIT,
		*selector[] = { &want, &more };
	struct fixture f;

	make(&f);
	want.key = (char *)"app";
	want.value = (char *)"b";
	filter.label_selector = selector;
	filter.n_label_selector = 1;
	assert_false(filter_pod(&filter, &f.a));
	assert_true(filter_pod(&filter, &f.b));
	more.key = (char *)"tier";
	more.value = (char *)"";
	filter.n_label_selector = 2; /* a label that is missing is not an empty one */
	assert_false(filter_pod(&filter, &f.b));
}

static void containers(void **state)
{
	Cri__ContainerFilter filter = CRI__CONTAINER_FILTER__INIT;
	Cri__ContainerStateValue exited = CRI__CONTAINER_STATE_VALUE__INIT;
	struct fixture f;

	make(&f);
	assert_true(filter_container(NULL, &f.c));
	filter.id = (char *)"ccc";
	filter.pod_sandbox_id = (char *)"bbbb";
	assert_false(filter_container(&filter, &f.c));
	filter.pod_sandbox_id = (char *)POD_A;
	assert_true(filter_container(&filter, &f.c));
	exited.state = CRI__CONTAINER_STATE__CONTAINER_EXITED;
	filter.state = &exited;
	assert_false(filter_container(&filter, &f.c));
	f.c.state = CONTAINER_EXITED;
	assert_true(filter_container(&filter, &f.c));
	f.c.state = CONTAINER_CREATING;
	assert_false(filter_container(NULL, &f.c));
}

static void states(void **state)
{
	static const Cri__ContainerState want[] = {
		[CONTAINER_CREATING] = CRI__CONTAINER_STATE__CONTAINER_CREATED,
		[CONTAINER_CREATED] = CRI__CONTAINER_STATE__CONTAINER_CREATED,
		[CONTAINER_RUNNING] = CRI__CONTAINER_STATE__CONTAINER_RUNNING,
		[CONTAINER_EXITED] = CRI__CONTAINER_STATE__CONTAINER_EXITED,
	};
	struct fixture f;

	make(&f);
	assert_int_equal(pod_cri_state(&f.a), CRI__POD_SANDBOX_STATE__SANDBOX_READY);
	assert_int_equal(pod_cri_state(&f.b), CRI__POD_SANDBOX_STATE__SANDBOX_NOTREADY);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		f.c.state = (enum container_state)i;
		assert_int_equal(container_cri_state(&f.c), want[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pods),
		cmocka_unit_test(labels),
		cmocka_unit_test(containers),
		cmocka_unit_test(states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
