/* Where the guest's console goes: bounded, and never waited for. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/dev/console.h"

static void test_pipe(void **state)
{
	static char many[MIB];
	struct console c;
	char text[8] = "";
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0); /* a blocking one: made non-blocking */
	console_init(&c);
	console_output(&c, "nowhere", 7);
	console_set_sink(&c, p[1]);
	console_output(&c, "panic\n", 6);
	for (int i = 0; i < 4; i++)
		console_output(&c, many, sizeof(many)); /* does not fit, does not wait */
	assert_int_equal(read(p[0], text, 6), 6);
	assert_string_equal(text, "panic\n");
	console_fini(&c);
	while (read(p[0], many, sizeof(many)) > 0)
		;
	assert_int_equal(read(p[0], many, 1), 0); /* closed */
	close(p[0]);
}

static void test_file(void **state)
{
	static char many[MIB];
	char path[] = "/tmp/husk-test-console.XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	struct console c;
	struct stat st;

	assert_true(fd >= 0);
	console_init(&c);
	console_set_sink(&c, fd);
	for (int i = 0; i < 6; i++)
		console_output(&c, many, sizeof(many) - 1);
	console_fini(&c);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, CONSOLE_FILE_MAX);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
