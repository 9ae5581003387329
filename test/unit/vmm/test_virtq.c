#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include <errno.h>

#define SIZE 16
#define FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC)

static struct driver d;
static struct driver_ring *r;
static struct virtq q;
static struct virtq_chain c;

static void enable(uint64_t features)
{
	struct virtq_layout l = driver_layout(0, SIZE);

	driver_ring_init(&d, 0, SIZE);
	r = &d.rings[0];
	memset(d.ram, 0, GUEST_RAM);
	assert_int_equal(virtq_enable(&q, &d.mem, &l, SIZE, features), 0);
}

static int setup(void **state)
{
	driver_mem_init(&d);
	enable(FEATURES);
	return 0;
}

static int teardown(void **state)
{
	driver_fini(&d);
	return 0;
}

static void test_layout(void **state)
{
	struct virtq v;
	struct virtq_layout l = driver_layout(0, SIZE), bad;
#define REFUSED(code, change)                                                                      \
	do {                                                                                       \
		bad = l;                                                                           \
		bad.change;                                                                        \
		assert_int_equal(virtq_enable(&v, &d.mem, &bad, SIZE, 0), code);                   \
	} while (0)
	REFUSED(-EINVAL, size = 0);
	REFUSED(-EINVAL, size = 12);
	REFUSED(-EINVAL, size = 32);
	REFUSED(-EINVAL, desc += 8);
	REFUSED(-EINVAL, avail += 1);
	REFUSED(-EINVAL, used += 2);
	REFUSED(-EFAULT, desc = 0);
	REFUSED(-EFAULT, desc = GUEST_BASE + GUEST_RAM - 16 * SIZE + 16);
	REFUSED(-EFAULT, avail = GUEST_BASE + GUEST_RAM - 2 * SIZE);
	REFUSED(-EFAULT, used = UINT64_MAX - 3);
	REFUSED(0, used = GUEST_BASE + GUEST_RAM - (6 + 8 * SIZE + 2));
}

static void test_chain(void **state)
{
	const struct driver_buf b[] = { { DATA_BASE, 16, false },
					{ DATA_BASE + 100, 512, false },
					{ DATA_BASE + 1000, 1, true } };
	uint32_t id, len;
	uint16_t head;

	assert_int_equal(virtq_pop(&q, &c), 0);
	head = driver_add(r, b, 3);
	assert_int_equal(virtq_pop(&q, &c), 1);
	assert_int_equal(c.head, head);
	assert_int_equal(c.n_out, 2);
	assert_int_equal(c.n_in, 1);
	assert_int_equal(c.out_len, 528);
	assert_int_equal(c.in_len, 1);
	assert_ptr_equal(c.iov[1].iov_base, driver_ptr(&d, DATA_BASE + 100));
	assert_int_equal(virtq_pop(&q, &c), 0);
	virtq_unpop(&q);
	assert_int_equal(virtq_pop(&q, &c), 1);
	virtq_push(&q, c.head, 7);
	assert_false(driver_used(r, &id, &len)); /* not before it is published */
	assert_true(virtq_publish(&q));
	assert_false(virtq_publish(&q));
	assert_true(driver_used(r, &id, &len));
	assert_int_equal(id, head);
	assert_int_equal(len, 7);
}

static void put_indirect(uint32_t len, unsigned n, uint16_t flags)
{
	struct ring_desc *t = driver_ptr(&d, DATA_BASE);

	for (unsigned i = 0; i < n; i++)
		t[i] = (struct ring_desc){ DATA_BASE + 64 * KIB + i, 1,
					   i + 1 < n ? D_NEXT : D_WRITE, (uint16_t)(i + 1) };
	r->desc[0] = (struct ring_desc){ DATA_BASE, len, flags, 1 };
	driver_avail(r, 0);
}

static void test_indirect(void **state)
{
	put_indirect(16 * VIRTQ_CHAIN_MAX, VIRTQ_CHAIN_MAX, D_INDIRECT);
	assert_int_equal(virtq_pop(&q, &c), 1);
	assert_int_equal(c.n_out, VIRTQ_CHAIN_MAX - 1);
	assert_int_equal(c.n_in, 1);
	/* Not offered: refused. */
	enable(VIRTIO_F_VERSION_1);
	put_indirect(16, 1, D_INDIRECT);
	assert_int_equal(virtq_pop(&q, &c), 0);
	assert_true(q.broken);
}

/* Each breaks the queue, and it stays broken until it is enabled again. */
static void expect_broken(void)
{
	const struct driver_buf b = { DATA_BASE, 1, true };

	assert_int_equal(virtq_pop(&q, &c), 0);
	assert_true(q.broken);
	driver_add(r, &b, 1);
	assert_int_equal(virtq_pop(&q, &c), 0);
	assert_false(virtq_arm(&q));
	enable(FEATURES);
}

static void one(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	r->desc[0] = (struct ring_desc){ addr, len, flags, next };
	driver_avail(r, 0);
	expect_broken();
}

static void test_hostile(void **state)
{
	const struct driver_buf order[] = { { DATA_BASE, 1, true }, { DATA_BASE, 1, false } };

	one(DATA_BASE, 0, 0, 0);		    /* empty buffer */
	one(DATA_BASE, 1, D_NEXT, 0);		    /* loop to itself */
	one(DATA_BASE, 1, D_NEXT, SIZE);	    /* next out of range */
	one(DATA_BASE, 1, D_NEXT, 0xffff);	    /* ... far out */
	one(0, 1, 0, 0);			    /* no memory there */
	one(GUEST_BASE + GUEST_RAM - 1, 2, 0, 0);   /* across the end */
	one(UINT64_MAX, 2, 0, 0);		    /* wraps around */
	one(DATA_BASE, UINT32_MAX, D_WRITE, 0);	    /* longer than memory */
	one(DATA_BASE, 0, D_INDIRECT, 0);	    /* empty table */
	one(DATA_BASE, 24, D_INDIRECT, 0);	    /* table of 1.5 entries */
	one(DATA_BASE, 16 * 200, D_INDIRECT, 0);    /* table too long */
	one(0x10, 16, D_INDIRECT, 0);		    /* table nowhere */
	one(DATA_BASE, 16, D_INDIRECT | D_NEXT, 1); /* 2.7.5.3.1: not both */
	put_indirect(32, 2, D_INDIRECT);
	((struct ring_desc *)driver_ptr(&d, DATA_BASE))[1].next = 0;
	((struct ring_desc *)driver_ptr(&d, DATA_BASE))[1].flags = D_NEXT;
	expect_broken(); /* loop in the table */
	put_indirect(32, 2, D_INDIRECT);
	((struct ring_desc *)driver_ptr(&d, DATA_BASE))[1].flags = D_INDIRECT;
	expect_broken(); /* table in a table */
	driver_avail(r, SIZE);
	expect_broken(); /* head out of range */
	r->avail[1] = SIZE + 1;
	expect_broken(); /* more chains than descriptors */
	driver_add(r, order, 2);
	expect_broken();
	/* A loop of the whole ring. */
	for (uint16_t i = 0; i < SIZE; i++)
		r->desc[i] = (struct ring_desc){ DATA_BASE, 1, D_NEXT, (uint16_t)((i + 1) % SIZE) };
	driver_avail(r, 3);
	expect_broken();
}

static void test_huge_sum(void **state)
{
	/* 4 GiB in one chain: the same megabytes again and again. */
	struct ring_desc *t = driver_ptr(&d, DATA_BASE);
	for (unsigned i = 0; i < 129; i++)
		t[i] = (struct ring_desc){ GUEST_BASE, GUEST_RAM, D_NEXT, (uint16_t)(i + 1) };
	r->desc[0] = (struct ring_desc){ DATA_BASE, 16 * 129, D_INDIRECT, 0 };
	t[128].flags = 0;
	driver_avail(r, 0);
	assert_int_equal(virtq_pop(&q, &c), 1); /* 516 MiB is fine: still under 4 GiB */
	assert_int_equal(c.out_len, 129 * GUEST_RAM);
}

static void test_wrap(void **state)
{
	const struct driver_buf b = { DATA_BASE, 1, true };
	uint32_t id, len;

	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = driver_add(r, &b, 1);

		assert_int_equal(virtq_pop(&q, &c), 1);
		assert_int_equal(c.head, head);
		virtq_push(&q, c.head, i);
		assert_true(virtq_publish(&q));
		assert_true(driver_used(r, &id, &len));
		assert_int_equal(id, head);
		assert_int_equal(len, i);
	}
}

static void test_notifications(void **state)
{
	const struct driver_buf b = { DATA_BASE, 1, true };
	uint16_t *used_event;
	uint16_t *avail_event;

	driver_add(r, &b, 1);
	r->avail[0] = 1; /* no interrupt, please */
	assert_int_equal(virtq_pop(&q, &c), 1);
	virtq_push(&q, c.head, 0);
	assert_false(virtq_publish(&q));
	virtq_disarm(&q);
	assert_int_equal(r->used[0], 1);
	assert_false(virtq_arm(&q));
	assert_int_equal(r->used[0], 0);
	driver_add(r, &b, 1);
	assert_true(virtq_arm(&q));

	enable(FEATURES | VIRTIO_F_EVENT_IDX);
	used_event = &r->avail[2 + SIZE];
	avail_event = &r->used[2 + 4 * SIZE];
	for (int i = 0; i < 4; i++)
		driver_add(r, &b, 1);
	*used_event = 2; /* tell me when the third is done */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(virtq_pop(&q, &c), 1);
		virtq_push(&q, c.head, 0);
		assert_int_equal(virtq_publish(&q), i == 2);
	}
	assert_false(virtq_arm(&q));
	assert_int_equal(*avail_event, 4);
}

static void test_iov(void **state)
{
	char a[4] = "abcd", b[4] = "efgh", out[16] = "";
	struct iovec iov[3] = { { a, 4 }, { b, 0 }, { b, 4 } }, part[3];

	assert_int_equal(iov_read(iov, 3, 2, out, 4), 4);
	assert_memory_equal(out, "cdef", 4);
	assert_int_equal(iov_read(iov, 3, 7, out, 9), 1);
	assert_int_equal(iov_read(iov, 3, 8, out, 9), 0);
	assert_int_equal(iov_write(iov, 3, 3, "XY", 2), 2);
	assert_memory_equal(a, "abcX", 4);
	assert_memory_equal(b, "Yfgh", 4);
	assert_int_equal(iov_slice(iov, 3, 1, 4, part, 3), 2);
	assert_ptr_equal(part[0].iov_base, a + 1);
	assert_int_equal(part[0].iov_len, 3);
	assert_int_equal(part[1].iov_len, 1);
	assert_int_equal(iov_slice(iov, 3, 0, 8, part, 1), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_layout),	  T(test_chain), T(test_indirect),	T(test_hostile),
		T(test_huge_sum), T(test_wrap),	 T(test_notifications), T(test_iov),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
