#include "test/lib/unit.h"

#include "test/lib/torture.h"

#include <errno.h>
#include <stdlib.h>

/* The test is one thread. */
static struct {
	bool on, failed;
	unsigned left; /* allocations until one fails */
	long live;     /* blocks */
} t;

/* What the linker calls the originals (--wrap). */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
int __real_vasprintf(char **ret, const char *fmt, va_list ap);
void __real_free(void *p);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_vasprintf(char **ret, const char *fmt, va_list ap);
int __wrap___vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap);
void __wrap_free(void *p);

static bool fails(void)
{
	if (!t.on || t.failed || t.left-- > 0)
		return false;
	t.failed = true;
	errno = ENOMEM;
	return true;
}

static void *born(void *p)
{
	t.live += p != NULL;
	return p;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : born(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : born(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t n)
{
	void *q = fails() ? NULL : __real_realloc(p, n);

	t.live += !p && q;
	return q;
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	void *q = fails() ? NULL : __real_reallocarray(p, n, size);

	t.live += !p && q;
	return q;
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : born(__real_strdup(s));
}

char *__wrap_strndup(const char *s, size_t n)
{
	return fails() ? NULL : born(__real_strndup(s, n));
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
	int n = fails() ? -1 : __real_vasprintf(ret, fmt, ap);

	t.live += n >= 0;
	return n;
}

int __wrap___vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap)
{
	return __wrap_vasprintf(ret, fmt, ap);
}

void __wrap_free(void *p)
{
	t.live -= p != NULL;
	__real_free(p);
}

bool torture_failed(void)
{
	return t.failed;
}

unsigned torture(torture_fn fn, void *arg, bool leaks, unsigned most)
{
	long before;
	int r;

	for (unsigned n = 0; n < most; n++) {
		before = t.live;
		t.left = n;
		t.failed = false;
		t.on = true;
		r = fn(arg);
		t.on = false;
		if (leaks && t.live != before)
			fail_msg("allocation %u failed: %ld blocks are left", n, t.live - before);
		if (!t.failed) {
			if (r < 0)
				fail_msg("no allocation failed, and yet: %d", r);
			return n + 1;
		}
		if (r < 0 && r != -ENOMEM)
			fail_msg("allocation %u failed, but the error is %d", n, r);
	}
	fail_msg("more than %u allocations", most);
	return 0;
}
