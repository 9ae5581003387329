/* The guest kernel's command line: order, length, characters. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/backend/cmdline.h"

static void test_words(void **state)
{
	struct cmdline c;
	struct err err = { 0 };

	cmdline_init(&c);
	assert_string_equal(c.text, "");
	assert_ok(cmdline_add(&c, "", &err), &err);
	assert_ok(cmdline_add(&c, "one two", &err), &err);
	assert_ok(cmdline_add(&c, "three", &err), &err);
	assert_ok(cmdline_add(&c, "", &err), &err);
	assert_string_equal(c.text, "one two three");
	assert_int_equal(c.len, strlen(c.text));
}

static void test_defaults(void **state)
{
	static const enum cmdline_for who[] = { CMDLINE_KVM, CMDLINE_QEMU };

	for (size_t i = 0; i < ARRAY_SIZE(who); i++) {
		struct cmdline c;
		struct err err = { 0 };

		cmdline_init(&c);
		assert_ok(cmdline_add_defaults(&c, who[i], &err), &err);
		assert_null(strstr(c.text, "earlyprintk"));
		assert_text(c.text, "panic=-1");
		assert_text(c.text, "reboot=t");
		assert_ok(cmdline_add_console(&c, &err), &err);
		assert_text(c.text, "earlyprintk=serial,0x3f8,115200,keep");
		assert_null(strstr(c.text, "  "));
		assert_true(c.len < VM_CMDLINE_MAX / 2); /* room for the client's */
	}
}

static void test_mmio(void **state)
{
	struct cmdline c;
	struct err err = { 0 };

	cmdline_init(&c);
	assert_ok(cmdline_add_mmio(&c, 0xc0001000, 6, &err), &err);
	assert_string_equal(c.text, "virtio_mmio.device=4K@0xc0001000:6");
}

static void test_length(void **state)
{
	char *words = malloc(VM_CMDLINE_MAX + 2);
	struct cmdline c;
	struct err err = { 0 };

	assert_non_null(words);
	memset(words, 'x', VM_CMDLINE_MAX + 1);
	words[VM_CMDLINE_MAX + 1] = '\0';
	cmdline_init(&c);
	assert_int_equal(cmdline_add(&c, words, &err), -E2BIG);
	assert_string_equal(c.text, "");
	words[VM_CMDLINE_MAX] = '\0';
	assert_ok(cmdline_add(&c, words, &err), &err);
	assert_int_equal(c.len, VM_CMDLINE_MAX);
	assert_int_equal(cmdline_add(&c, "y", &err), -E2BIG);
	assert_text(err_text(&err), "longer than 2047");
	/* The blank counts. */
	cmdline_init(&c);
	words[VM_CMDLINE_MAX - 1] = '\0';
	assert_ok(cmdline_add(&c, words, &err), &err);
	assert_int_equal(cmdline_add(&c, "y", &err), -E2BIG);
	assert_int_equal(c.len, VM_CMDLINE_MAX - 1);
	words[VM_CMDLINE_MAX - 2] = '\0';
	cmdline_init(&c);
	assert_ok(cmdline_add(&c, words, &err), &err);
	assert_ok(cmdline_add(&c, "y", &err), &err);
	assert_int_equal(c.len, VM_CMDLINE_MAX);
	assert_int_equal(strlen(c.text), VM_CMDLINE_MAX);
	free(words);
}

static void test_characters(void **state)
{
	static const char *const bad[] = { "a\nb", "\t", "caf\xc3\xa9", "\x7f", "a\x01" };
	struct cmdline c;
	struct err err = { 0 };

	cmdline_init(&c);
	assert_ok(cmdline_add(&c, "good", &err), &err);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(cmdline_add(&c, bad[i], &err), -EINVAL);
		assert_string_equal(c.text, "good");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),	   cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_mmio),	   cmocka_unit_test(test_length),
		cmocka_unit_test(test_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
