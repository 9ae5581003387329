/* Which backend `auto` means: what is made of the answers of husk-vmm --probe. */
#include "test/lib/unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/runtime/backend.h"

static struct {
	char dir[64], program[96];
	struct loop *loop;
} g;

static int setup(void **state)
{
	log_init("test", STDERR_FILENO, LOG_ERROR + 1, false);
	(void)snprintf(g.dir, sizeof(g.dir), "/tmp/husk-backend-XXXXXX");
	assert_non_null(mkdtemp(g.dir));
	(void)snprintf(g.program, sizeof(g.program), "%s/husk-vmm", g.dir);
	assert_int_equal(loop_new(&g.loop, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	loop_free(g.loop);
	return remove_tree(g.dir, NULL);
}

/* Until its output has ended and it was reaped. */
static void probe(struct backend *b, const char *script)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "#!/bin/sh\n[ \"$1\" = --probe ] || exit 1\n%s\n",
			 script);

	assert_int_equal(write_file_atomic(g.program, text, (size_t)n, 0700, false, NULL), 0);
	backend_probe(b, g.loop, g.program);
	for (int i = 0; i < 100 && (b->child.pidfd >= 0 || b->out.loop); i++)
		assert_true(loop_once(g.loop, 100) >= 0);
	assert_null(b->out.loop);
	backend_fini(b);
}

static void kvm(void **state)
{
	struct backend b;

	probe(&b, "echo '{\"kvm\": {\"usable\": true, \"reason\": \"fast\"}, \"auto\": \"kvm\"}'");
	assert_string_equal(b.name, "kvm");
	assert_string_equal(b.reason, "fast");
	assert_string_equal(backend_name(&b, "auto"), "kvm");
	assert_string_equal(backend_name(&b, "qemu"), "qemu");
	assert_false(backend_fell_back(&b, "auto"));
}

static void qemu(void **state)
{
	struct backend b;
	char text[1000];
	int p[2];
	ssize_t n;

	assert_int_equal(pipe(p), 0);
	log_init("test", p[1], LOG_WARN, false);
	probe(&b,
	      "echo '{\"kvm\": {\"usable\": false, \"reason\": \"no /dev/kvm\"},'; sleep 0.1;"
	      "echo ' \"auto\": \"qemu\"}'");
	assert_string_equal(b.name, "qemu");
	assert_string_equal(b.reason, "kvm is not usable: no /dev/kvm");
	assert_string_equal(backend_name(&b, "auto"), "qemu");
	/* Never silently. */
	log_init("test", STDERR_FILENO, LOG_ERROR + 1, false);
	n = read(p[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	assert_text(text, "backend auto falls back to QEMU without KVM");
	assert_text(text, "no /dev/kvm");
	assert_true(backend_fell_back(&b, "auto"));
	assert_false(backend_fell_back(&b, "qemu"));
	assert_string_equal(backend_name(&b, "kvm"), "kvm");
	(void)close(p[0]);
	(void)close(p[1]);
}

/* Each monitor probes for itself then. */
static void no_answer(void **state)
{
	static const char *const scripts[] = {
		"exit 1",    "echo '{\"auto\": \"none\"}'", "echo '{\"auto\": '",
		"echo '[]'", "head -c 20000 /dev/zero",
	};
	struct backend b;

	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		probe(&b, scripts[i]);
		assert_string_equal(b.name, "");
		assert_string_equal(backend_name(&b, "auto"), "auto");
	}
	backend_probe(&b, g.loop, "/no/such/husk-vmm");
	assert_string_equal(backend_name(&b, "auto"), "auto");
	backend_fini(&b);
	b = (struct backend){ 0 };
	backend_fini(&b); /* one that was never asked */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kvm),
		cmocka_unit_test(qemu),
		cmocka_unit_test(no_answer),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
