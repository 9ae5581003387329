/*
 * Inside backend kvm: what its files share. kvm.c has the VM, its devices, the vCPU threads
 * and their exits; x86_64/kvm.c the architecture: CPUID, registers, interrupt chip, boot.
 */
#ifndef HUSK_VMM_BACKEND_KVM_H
#define HUSK_VMM_BACKEND_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/backend/backend.h"
#include "vmm/guestmem.h"
#include "vmm/virtio/mmio.h"

#define KVM_DEVICES_MAX 8
#define CONSOLE_BUF (16 * KIB) /* what does not fit until the main loop comes is dropped */

struct kvm_vcpu {
	struct backend *vm;
	unsigned id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
};

struct backend {
	struct loop *loop;
	void (*ended)(void *arg, enum end_reason reason, const char *message);
	void *arg;

	int kvm_fd, vm_fd;
	struct guestmem mem;
	struct virtio_mmio *devices;
	size_t n_devices;
	struct kvm_vcpu *vcpus;
	unsigned n_vcpus;
	size_t run_size;

	/* From the vCPU threads to the main loop. */
	int wake;
	struct ev_io wake_io;
	atomic_bool stopping;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t applied;
	uint32_t to_apply;	/* bit per device: virtio_mmio_apply */
	uint64_t asked, served; /* numbers of applications: a vCPU waits until its own is served */
	bool has_ended;
	enum end_reason reason; /* of the first cause */
	char message[400];
	size_t console_n; /* bytes on their way to the main loop */
	uint8_t console_buf[CONSOLE_BUF];

	void (*console)(void *arg, const void *data, size_t n); /* NULL = nobody listens */
	atomic_uchar uart_lcr; /* line control register of the console's port */
};

/* The architecture's part. Each returns -errno with text. */
int kvm_arch_check(int kvm_fd, struct err *err) must_check;
/* After KVM_CREATE_VM, before memory and vCPUs. */
int kvm_arch_create(struct backend *b, struct err *err) must_check;
/* Guest RAM into b->mem (not yet given to KVM). */
int kvm_arch_ram(struct backend *b, uint64_t size, struct err *err) must_check;
/* Base address and interrupt of a device. */
uint64_t kvm_arch_mmio_base(size_t device);
unsigned kvm_arch_irq(size_t device);
/* Kernel, initramfs and tables into RAM, registers into the vCPUs. */
int kvm_arch_load(struct backend *b, const struct backend_boot *boot, const char *cmdline,
		  struct err *err) must_check;
/* The registers that tell where a vCPU was, for the text of a failure. */
void kvm_arch_describe(const struct kvm_vcpu *v, char *buf, size_t size);
/* Bytes for the console, from a vCPU thread. In kvm.c. */
void kvm_console_put(struct backend *b, const uint8_t *data, size_t n);
/* An access to an I/O port. True: the guest asked for a reset. */
bool kvm_arch_port_io(struct kvm_vcpu *v);

#endif
