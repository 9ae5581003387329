/*
 * The guest kernel's command line: the monitor's own parameters, the devices, then what the client
 * of the control socket wants, within the length that the guest kernel takes. Leaf functions.
 *
 *	struct cmdline c;
 *	cmdline_init(&c);
 *	r = cmdline_add_defaults(&c, CMDLINE_KVM, err);
 *	r = cmdline_add_console(&c, err);			if somebody listens
 *	r = cmdline_add_mmio(&c, 0xd0000000, 5, err);		each device, kvm only
 *	r = cmdline_add(&c, boot->cmdline, err);		last: it wins
 */
#ifndef HUSK_VMM_BACKEND_CMDLINE_H
#define HUSK_VMM_BACKEND_CMDLINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define VM_CMDLINE_MAX 2047 /* what the guest kernel takes (COMMAND_LINE_SIZE), without NUL */

struct cmdline {
	char text[VM_CMDLINE_MAX + 1]; /* always NUL-terminated */
	size_t len;
};

enum cmdline_for { CMDLINE_KVM, CMDLINE_QEMU };

void cmdline_init(struct cmdline *c);
/* Appends words after a blank; "" adds nothing. -EINVAL: a character that is not printable ASCII;
 * -E2BIG: longer than VM_CMDLINE_MAX. On failure the line is as before. */
int cmdline_add(struct cmdline *c, const char *words, struct err *err) must_check;
/* What every guest gets, and what belongs to the backend. */
int cmdline_add_defaults(struct cmdline *c, enum cmdline_for who, struct err *err) must_check;
/* The console, when somebody listens: warnings, oopses and the text of a panic come there. */
int cmdline_add_console(struct cmdline *c, struct err *err) must_check;
/* A virtio-mmio device of one page (VIRTIO_MMIO_CMDLINE_DEVICES). */
int cmdline_add_mmio(struct cmdline *c, uint64_t base, unsigned irq, struct err *err) must_check;

#endif
