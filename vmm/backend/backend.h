/*
 * A backend runs the vCPUs: `kvm` in this process, `qemu` in a child that is served over
 * vhost-user. Both drive the same devices. All functions and callbacks on the main loop's thread.
 */
#ifndef HUSK_VMM_BACKEND_BACKEND_H
#define HUSK_VMM_BACKEND_BACKEND_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define VM_GUEST_CID 3

/* As husk.vmm.v1.EndReason. */
enum end_reason {
	END_UNKNOWN = 0,
	END_POWEROFF = 1,
	END_REBOOT = 2,
	END_KILLED = 3,
	END_MONITOR_ERROR = 4,
	END_BACKEND_DIED = 5,
};

struct backend_boot {
	struct loop *loop;
	const char *kernel;    /* path of an ELF vmlinux */
	const char *initramfs; /* path */
	const char *cmdline;   /* the client's part, "" = none; the backend adds it to its own
				  (cmdline.h) */
	unsigned vcpus;
	uint32_t memory_mib;
	struct virtio_dev *const *devices; /* outlive the backend; order = order of mmio slots */
	size_t n_devices;
	const char *qemu_path;	/* qemu only */
	char *const *qemu_args; /* qemu only: more arguments, null-terminated, or NULL */
	/* Output of the guest's console; NULL = not wanted, and the guest gets none. */
	void (*console)(void *arg, const void *data, size_t n);
	/* Exactly once after a boot that returned 0, unless backend free comes first; never inside
	 * boot or kill. The vCPUs do not run any more. `message` may be "". */
	void (*ended)(void *arg, enum end_reason reason, const char *message);
	void *arg;
};

struct backend; /* what boot returned; each backend has its own */

struct backend_ops {
	const char *name;
	/* Everything in `b` is borrowed for the call, except loop, devices and arg, which must
	 * outlive the backend. On return the vCPUs run. */
	int (*boot)(const struct backend_boot *b, struct backend **ret, struct err *err) must_check;
	/* Ends the VM soon: leads to ended(END_KILLED). Nothing when it has ended. */
	void (*kill)(struct backend *b);
	/* Ends the VM now if it runs, without callback, and frees. Devices are stopped and their
	 * queues disabled. NULL is fine. */
	void (*free)(struct backend *b);
	/* The child that runs the vCPUs; NULL or 0 = they run here. */
	pid_t (*pid)(const struct backend *b);
};

extern const struct backend_ops backend_kvm;
extern const struct backend_ops backend_qemu;

#endif
