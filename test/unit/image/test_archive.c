/* The index of an archive: what tar programs write, what we write, and what nobody should. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/worker/archive_index.h"
#include "image/job/save.h"

static struct buf tar;

static ssize_t read_tar(void *arg, void *buf, size_t n, uint64_t offset)
{
	if (offset >= buf_len(&tar))
		return 0;
	/* Short reads are nothing special. */
	n = MIN_OF(n, MIN_OF((size_t)7000, buf_len(&tar) - offset));
	memcpy(buf, buf_data(&tar) + offset, n);
	return (ssize_t)n;
}

static int setup(void **state)
{
	buf_init(&tar, 64 * MIB);
	return 0;
}

static int teardown(void **state)
{
	buf_fini(&tar);
	return 0;
}

static void pad(void)
{
	static const uint8_t zero[ARCHIVE_BLOCK];

	assert_int_equal(buf_put(&tar, zero,
				 (ARCHIVE_BLOCK - buf_len(&tar) % ARCHIVE_BLOCK) % ARCHIVE_BLOCK),
			 0);
}

static uint8_t *put_header(const char *name, uint64_t size, char type, const char *link)
{
	uint8_t h[ARCHIVE_BLOCK];
	unsigned sum = 0;
	uint8_t *at;

	archive_header(h, name, size);
	h[156] = (uint8_t)type;
	snprintf((char *)h + 157, 100, "%s", link);
	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
	assert_int_equal(buf_reserve(&tar, sizeof(h), &at), 0);
	memcpy(at, h, sizeof(h));
	buf_commit(&tar, sizeof(h));
	return at;
}

static void put_file(const char *name, const char *text)
{
	put_header(name, strlen(text), '0', "");
	assert_int_equal(buf_put(&tar, text, strlen(text)), 0);
	pad();
}

static void put_end(void)
{
	static const uint8_t zero[2 * ARCHIVE_BLOCK];

	assert_int_equal(buf_put(&tar, zero, sizeof(zero)), 0);
}

static int index_of(struct archive_index *ix, struct err *err)
{
	*ix = (struct archive_index){ 0 };
	return archive_index_read(read_tar, NULL, buf_len(&tar), ix, err);
}

static void expect(const struct archive_index *ix, const char *name, const char *text)
{
	const struct archive_entry *e = archive_find(ix, name);

	if (!text) {
		assert_null(e);
		return;
	}
	assert_non_null(e);
	assert_int_equal(e->size, strlen(text));
	assert_memory_equal(buf_data(&tar) + e->offset, text, strlen(text));
}

static void names_and_links(void **state)
{
	struct archive_index ix;
	struct err err = { 0 };

	put_file("./index.json", "{}");
	put_file("blobs//sha256/aa", "one");
	put_header("dir/", 0, '5', "");
	put_file("dir/layer.tar", "old");
	put_file("dir/layer.tar", "new"); /* the later one counts */
	put_header("other/layer.tar", 0, '2', "../dir/layer.tar");
	put_header("hard", 0, '1', "blobs/sha256/aa");
	put_header("loop", 0, '2', "loop");
	put_header("nowhere", 0, '2', "../../../etc/passwd");
	put_header("dev", 0, '3', "");
	put_file("/abs/name", "x");
	put_file("", "no name");
	put_end();
	assert_ok(index_of(&ix, &err), &err);
	expect(&ix, "index.json", "{}");
	expect(&ix, "./blobs/sha256/aa", "one");
	expect(&ix, "dir/layer.tar", "new");
	expect(&ix, "other/layer.tar", "new");
	expect(&ix, "hard", "one");
	expect(&ix, "loop", NULL);
	expect(&ix, "nowhere", NULL);
	expect(&ix, "dev", NULL);
	expect(&ix, "dir", NULL);
	expect(&ix, "abs/name", "x");
	expect(&ix, "missing", NULL);
	archive_index_fini(&ix);
}

static void put_pax(const char *record)
{
	char text[600];
	/* "LEN record\n" where LEN counts itself. */
	size_t n = strlen(record) + 3;

	n += n + 1 >= 100 ? 2 : n + 0 >= 10 ? 1 : 0;
	snprintf(text, sizeof(text), "%zu %s\n", n, record);
	put_header("pax", strlen(text), 'x', "");
	assert_int_equal(buf_put(&tar, text, strlen(text)), 0);
	pad();
}

static void long_names(void **state)
{
	char name[300], record[320];
	struct archive_index ix;
	struct err err = { 0 };

	memset(name, 'n', sizeof(name));
	name[299] = '\0';
	snprintf(record, sizeof(record), "path=%s", name);
	put_pax(record);
	put_file("short", "pax");
	name[0] = 'g';
	put_header("././@LongLink", sizeof(name), 'L', "");
	assert_int_equal(buf_put(&tar, name, sizeof(name)), 0);
	pad();
	put_file("short2", "gnu");
	put_pax("size=4");
	put_file("sized", "four");
	put_end();
	assert_ok(index_of(&ix, &err), &err);
	expect(&ix, name, "gnu");
	name[0] = 'n';
	expect(&ix, name, "pax");
	expect(&ix, "short", NULL);
	expect(&ix, "sized", "four");
	archive_index_fini(&ix);
}

static void refuse(int code, const char *part)
{
	struct archive_index ix;
	struct err err = { 0 };

	assert_int_equal(index_of(&ix, &err), code);
	assert_text(err.msg, part);
	buf_clear(&tar);
}

static void bad_archives(void **state)
{
	static const char text[] = "This is a text of some length that is no archive at all.";
	uint8_t *h;

	refuse(-EPROTO, "no tar");
	assert_int_equal(buf_put(&tar, text, sizeof(text)), 0);
	refuse(-EPROTO, "no tar");
	for (int i = 0; i < 40; i++)
		assert_int_equal(buf_put(&tar, text, sizeof(text)), 0);
	refuse(-EPROTO, "no tar");

	put_file("good", "x");
	h = put_header("bad", 3, '0', "");
	h[0] = 'B'; /* the sum is wrong now */
	put_end();
	refuse(-EPROTO, "damaged at byte 1024");

	put_header("cut", 5000, '0', "");
	refuse(-EBADMSG, "cut off");
	put_header("huge", UINT64_MAX - 100, '0', "");
	put_end();
	refuse(-EBADMSG, "cut off");
	put_pax("size=99999999999999999999");
	put_file("x", "");
	refuse(-EPROTO, "extended header");
	put_pax("GNU.sparse.major=1");
	put_file("x", "");
	refuse(-EPROTO, "extended header");
	put_header("pax", 70000, 'x', "");
	for (int i = 0; i < 140; i++)
		put_header("fill", 0, '0', "");
	refuse(-EFBIG, "header");
	put_header("s", 0, 'S', "");
	refuse(-ENOTSUP, "sparse");
}

static void too_many(void **state)
{
	for (unsigned i = 0; i <= ARCHIVE_MAX_ENTRIES; i++)
		put_header("a", 0, '0', "");
	refuse(-EFBIG, "more than");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_and_links, setup, teardown),
		cmocka_unit_test_setup_teardown(long_names, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_archives, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
