#include "test/lib/shim/sandbox_fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/tmpdir.h"
#include "test/lib/unit.h"

struct loop *loop;
struct sandbox sb;
Shim__Options opts;
struct sandbox_setup setup;
char *console;

void sandbox_fixture_begin(const struct sandbox_ops *ops)
{
	struct err err = { 0 };

	shim__options__init(&opts);
	console = in_tmpdir("console.log");
	setup = (struct sandbox_setup){ .id = "pod-1",
					.opts = &opts,
					.vmm_path = "/vmm",
					.kernel = "/kernel",
					.initramfs = "/initramfs",
					.console = console };
	assert_ok(loop_new(&loop, &err), &err);
	fake_vm_init(loop);
	sandbox_init(&sb, loop, &setup, ops, NULL);
}

void sandbox_fixture_end(void)
{
	fake_vm_fini();
	(void)unlink(console);
	free(console);
	loop_free(loop);
}

void run_for(uint64_t ms)
{
	uint64_t end = now_mono_ns() + ms * NS_PER_MS;

	while (now_mono_ns() < end)
		assert_true(loop_once(loop, 5) >= 0);
}
