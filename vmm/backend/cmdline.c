#include "vmm/backend/cmdline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Each with its reason: a parameter nobody can explain is one nobody dares to remove. */
static const char *const common[] = {
	"loglevel=5",	   /* a character costs two exits; a good boot has nothing to warn of */
	"panic=-1",	   /* a panic ends the VM at once ... */
	"reboot=t",	   /* ... by a triple fault: there is no keyboard controller and no ACPI */
	"tsc=reliable",	   /* no clocksource watchdog */
	"no_timer_check",  /* no PIT to test the IOAPIC with */
	"swiotlb=noforce", /* virtio needs no bounce buffers: 64 MiB in bigger VMs */
	"rcupdate.rcu_expedited=1", /* mounts, namespaces and cgroups wait for no grace period */
	"noreplace-smp",	    /* keeps the lock prefixes: no patching, shared pages of text */
};

/* QEMU's microvm appends its own virtio_mmio.device= entries. */
static const char *const qemu_only[] = {
	"mitigations=off",	     /* emulated CPUs have no such side channels */
	"lapic_timer_hz=1000000000", /* of QEMU's local APIC; measuring it takes 200 ms (kernel/) */
	/* TCG of QEMU 7.2 computes the flags behind cmpxchg16b from stale state: an interrupt right
	 * behind it saves garbage, and the return from it kills the kernel. */
	"clearcpuid=cx16",
};

void cmdline_init(struct cmdline *c)
{
	c->text[0] = '\0';
	c->len = 0;
}

int cmdline_add(struct cmdline *c, const char *words, struct err *err)
{
	size_t n = strlen(words), blank = c->len > 0 ? 1 : 0;

	if (n == 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		if (words[i] < 0x20 || words[i] > 0x7e)
			return err_set(err, -EINVAL,
				       "kernel command line: character %zu is not printable ASCII",
				       i + 1);
	if (n > VM_CMDLINE_MAX - c->len || blank > VM_CMDLINE_MAX - c->len - n)
		return err_set(err, -E2BIG, "kernel command line: longer than %d characters",
			       VM_CMDLINE_MAX);
	if (blank)
		c->text[c->len++] = ' ';
	memcpy(c->text + c->len, words, n + 1);
	c->len += n;
	return 0;
}

static int add_all(struct cmdline *c, const char *const *words, size_t n, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = cmdline_add(c, words[i], err);
	return r;
}

int cmdline_add_defaults(struct cmdline *c, enum cmdline_for who, struct err *err)
{
	int r = add_all(c, common, ARRAY_SIZE(common), err);

	if (r == 0 && who == CMDLINE_QEMU)
		r = add_all(c, qemu_only, ARRAY_SIZE(qemu_only), err);
	return r;
}

int cmdline_add_console(struct cmdline *c, struct err *err)
{
	/* Without a driver, from the first moment to the last; "keep": nothing replaces it. */
	return cmdline_add(c, "earlyprintk=serial,0x3f8,115200,keep", err);
}

int cmdline_add_mmio(struct cmdline *c, uint64_t base, unsigned irq, struct err *err)
{
	char word[64]; /* "virtio_mmio.device=4K@0x" + 16 digits + ":" + 10 digits */

	snprintf(word, sizeof(word), "virtio_mmio.device=4K@0x%" PRIx64 ":%u", base, irq);
	return cmdline_add(c, word, err);
}
