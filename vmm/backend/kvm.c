/*
 * Backend kvm. Each vCPU is a thread that does nothing but KVM_RUN and register accesses of the
 * devices; interrupts (irqfd) and kicks (ioeventfd) pass through the kernel. All the rest is on the
 * main loop, woken by an eventfd.
 *
 * A vCPU thread is stopped by a signal that is blocked everywhere but inside KVM_RUN
 * (KVM_SET_SIGNAL_MASK): it stays pending, so it cannot come too early, and needs no handler.
 *
 * A guest without ACPI cannot power off: an orderly end, a reboot and a panic are all a reset
 * (END_REBOOT). Whoever asked the agent to shut down knows which one it was.
 */
#include "vmm/backend/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "vmm/backend/cmdline.h"
#include "vmm/thread.h"

#define KICK_SIGNAL SIGUSR2

/* ---- from the vCPU threads to the main loop ---- */

static void wake_loop(struct backend *b)
{
	uint64_t one = 1;

	if (write(b->wake, &one, sizeof(one)) < 0)
		log_debug("kvm: wake-up pending already");
}

static void end_vm(struct backend *b, enum end_reason reason, const char *message)
{
	pthread_mutex_lock(&b->lock);
	if (b->reason == END_UNKNOWN) {
		b->reason = reason;
		snprintf(b->message, sizeof(b->message), "%s", message);
	}
	pthread_mutex_unlock(&b->lock);
	wake_loop(b);
}

/* The vCPU that wrote waits until the main loop has brought the device to where its registers are.
 */
static void apply_and_wait(struct backend *b, size_t device)
{
	uint64_t number;

	pthread_mutex_lock(&b->lock);
	b->to_apply |= 1u << device;
	number = ++b->asked;
	wake_loop(b);
	while (b->served < number && !atomic_load(&b->stopping))
		pthread_cond_wait(&b->applied, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

void kvm_console_put(struct backend *b, const uint8_t *data, size_t n)
{
	bool was_empty;

	if (!b->console)
		return;
	pthread_mutex_lock(&b->lock);
	was_empty = b->console_n == 0;
	n = MIN_OF(n, sizeof(b->console_buf) - b->console_n);
	memcpy(b->console_buf + b->console_n, data, n);
	b->console_n += n;
	pthread_mutex_unlock(&b->lock);
	if (was_empty)
		wake_loop(b);
}

/* ---- vCPU threads ---- */

static void mmio(struct kvm_vcpu *v)
{
	struct backend *b = v->vm;
	struct kvm_run *run = v->run;
	uint64_t base = kvm_arch_mmio_base(0);
	uint64_t off = run->mmio.phys_addr - base; /* wraps below the base: too big then */
	size_t len = MIN_OF(run->mmio.len, sizeof(run->mmio.data));
	size_t device = off / VIRTIO_MMIO_SIZE;

	if (device >= b->n_devices) {
		if (!run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		return;
	}
	off %= VIRTIO_MMIO_SIZE;
	if (!run->mmio.is_write)
		virtio_mmio_read(&b->devices[device], off, run->mmio.data, len);
	else if (virtio_mmio_write(&b->devices[device], off, run->mmio.data, len))
		apply_and_wait(b, device);
}

static void end_by_failure(struct kvm_vcpu *v, const char *what)
{
	char where[200], text[400];

	kvm_arch_describe(v, where, sizeof(where));
	snprintf(text, sizeof(text), "vCPU %u: %s; %s", v->id, what, where);
	end_vm(v->vm, END_MONITOR_ERROR, text);
}

/* False: the VM ends. */
static bool handle_exit(struct kvm_vcpu *v)
{
	char what[100];

	switch (v->run->exit_reason) {
	case KVM_EXIT_MMIO:
		mmio(v);
		return true;
	case KVM_EXIT_IO:
		if (!kvm_arch_port_io(v))
			return true;
		end_vm(v->vm, END_REBOOT, "the guest reset itself");
		return false;
	case KVM_EXIT_INTR:
		return true;
	case KVM_EXIT_SHUTDOWN:
		end_vm(v->vm, END_REBOOT, "the guest reset itself");
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(what, sizeof(what), "KVM internal error, suberror %u",
			 v->run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "KVM entry failed, hardware reason 0x%llx",
			 (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		snprintf(what, sizeof(what), "KVM exit %u", v->run->exit_reason);
		break;
	}
	end_by_failure(v, what);
	return false;
}

static void *kvm_vcpu_main(void *arg)
{
	struct kvm_vcpu *v = arg;
	char name[16], what[100];

	snprintf(name, sizeof(name), "vcpu%u", v->id);
	(void)pthread_setname_np(pthread_self(), name);
	while (!atomic_load(&v->vm->stopping)) {
		if (ioctl(v->fd, KVM_RUN, NULL) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			snprintf(what, sizeof(what), "KVM_RUN: %s", strerror(errno));
			end_by_failure(v, what);
			break;
		}
		if (!handle_exit(v))
			break;
	}
	return NULL;
}

static int start_vcpus(struct backend *b, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < b->n_vcpus && r == 0; i++) {
		r = thread_start(&b->vcpus[i].thread, kvm_vcpu_main, &b->vcpus[i]);
		b->vcpus[i].has_thread = r == 0;
	}
	return r == 0 ? 0 : err_errno(err, r, "vCPU threads");
}

/* Main loop. No vCPU runs when this returns. */
static void stop_vcpus(struct backend *b)
{
	pthread_mutex_lock(&b->lock);
	atomic_store(&b->stopping, true);
	pthread_cond_broadcast(&b->applied);
	pthread_mutex_unlock(&b->lock);
	for (unsigned i = 0; i < b->n_vcpus; i++)
		if (b->vcpus[i].has_thread)
			pthread_kill(b->vcpus[i].thread, KICK_SIGNAL);
	for (unsigned i = 0; i < b->n_vcpus; i++) {
		if (b->vcpus[i].has_thread)
			pthread_join(b->vcpus[i].thread, NULL);
		b->vcpus[i].has_thread = false;
	}
}

/* ---- main loop ---- */

static void drain_console(struct backend *b)
{
	uint8_t data[CONSOLE_BUF];
	size_t n;

	pthread_mutex_lock(&b->lock);
	n = b->console_n;
	memcpy(data, b->console_buf, n);
	b->console_n = 0;
	pthread_mutex_unlock(&b->lock);
	if (n > 0)
		b->console(b->arg, data, n);
}

static void kvm_on_wake(struct ev_io *io, uint32_t events)
{
	struct backend *b = io->arg;
	enum end_reason reason;
	uint64_t n, number;
	uint32_t mask;

	if (read(b->wake, &n, sizeof(n)) < 0)
		return;
	drain_console(b);
	pthread_mutex_lock(&b->lock);
	mask = b->to_apply;
	number = b->asked;
	reason = b->reason;
	b->to_apply = 0;
	pthread_mutex_unlock(&b->lock);

	for (size_t i = 0; i < b->n_devices; i++)
		if (mask & 1u << i)
			virtio_mmio_apply(&b->devices[i]);

	pthread_mutex_lock(&b->lock);
	b->served = number;
	pthread_cond_broadcast(&b->applied);
	pthread_mutex_unlock(&b->lock);

	if (reason == END_UNKNOWN || b->has_ended)
		return;
	b->has_ended = true;
	stop_vcpus(b);
	drain_console(b);
	b->ended(b->arg, reason, b->message); /* may free b */
}

static void kvm_backend_kill(struct backend *b)
{
	end_vm(b, END_KILLED, "killed");
}

static void free_vcpu(const struct backend *b, struct kvm_vcpu *v)
{
	if (v->run)
		munmap(v->run, b->run_size);
	fd_close(&v->fd);
}

static void kvm_backend_free(struct backend *b)
{
	if (!b)
		return;
	stop_vcpus(b);
	for (size_t i = 0; i < b->n_devices; i++)
		virtio_mmio_fini(&b->devices[i]);
	free(b->devices);
	for (unsigned i = 0; i < b->n_vcpus; i++)
		free_vcpu(b, &b->vcpus[i]);
	free(b->vcpus);
	ev_io_del(&b->wake_io);
	fd_close(&b->wake);
	fd_close(&b->vm_fd);
	fd_close(&b->kvm_fd);
	guestmem_fini(&b->mem);
	pthread_cond_destroy(&b->applied);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

static void kvm_backend_freep(struct backend **b)
{
	kvm_backend_free(*b);
}

/* ---- boot ---- */

static int open_kvm(struct backend *b, struct err *err)
{
	int r;

	b->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (b->kvm_fd < 0)
		return err_errno(err, -errno, "/dev/kvm (husk check says what can be done)");
	if (ioctl(b->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return err_set(err, -EPROTO, "/dev/kvm: unknown version of its interface");
	r = kvm_arch_check(b->kvm_fd, err);
	if (r < 0)
		return r;
	r = ioctl(b->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < (int)sizeof(struct kvm_run))
		return err_set(err, -EPROTO, "/dev/kvm: KVM_GET_VCPU_MMAP_SIZE");
	b->run_size = (size_t)r;
	do
		b->vm_fd = ioctl(b->kvm_fd, KVM_CREATE_VM, 0);
	while (b->vm_fd < 0 && errno == EINTR);
	if (b->vm_fd < 0)
		return err_errno(err, -errno, "KVM_CREATE_VM");
	return kvm_arch_create(b, err);
}

static int give_memory(struct backend *b, struct err *err)
{
	for (unsigned i = 0; i < b->mem.n; i++) {
		const struct guest_region *g = &b->mem.regions[i];
		struct kvm_userspace_memory_region r = {
			.slot = i,
			.guest_phys_addr = g->gpa,
			.memory_size = g->size,
			.userspace_addr = (uintptr_t)g->host,
		};

		if (ioctl(b->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
			return err_errno(err, -errno, "KVM_SET_USER_MEMORY_REGION");
	}
	return 0;
}

static int create_vcpus(struct backend *b, unsigned n, struct err *err)
{
	/* struct kvm_signal_mask, then the kernel's sigset right behind it. */
	struct {
		uint32_t len;
		uint8_t set[8];
	} mask = { .len = sizeof(mask.set) };
	uint64_t blocked = ~(1ull << (KICK_SIGNAL - 1));

	memcpy(mask.set, &blocked, sizeof(mask.set));
	b->vcpus = calloc(n, sizeof(*b->vcpus));
	if (!b->vcpus)
		return err_nomem(err);
	for (unsigned i = 0; i < n; i++) {
		struct kvm_vcpu *v = &b->vcpus[b->n_vcpus++];
		void *run;

		*v = (struct kvm_vcpu){ .vm = b, .id = i };
		v->fd = ioctl(b->vm_fd, KVM_CREATE_VCPU, (unsigned long)i);
		if (v->fd < 0)
			return err_errno(err, -errno, "KVM_CREATE_VCPU %u", i);
		run = mmap(NULL, b->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
		if (run == MAP_FAILED)
			return err_errno(err, -errno, "vCPU %u: mmap", i);
		v->run = run;
		if (ioctl(v->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
			return err_errno(err, -errno, "KVM_SET_SIGNAL_MASK");
	}
	return 0;
}

/* Interrupts and kicks of a device through the kernel. */
static int wire_device(struct backend *b, size_t i, struct err *err)
{
	const struct virtio_mmio *m = &b->devices[i];
	struct kvm_irqfd irq = { .fd = (uint32_t)m->irq, .gsi = kvm_arch_irq(i) };

	if (ioctl(b->vm_fd, KVM_IRQFD, &irq) < 0)
		return err_errno(err, -errno, "KVM_IRQFD");
	for (unsigned q = 0; q < m->dev->ops->n_queues; q++) {
		struct kvm_ioeventfd kick = {
			.datamatch = q,
			.addr = kvm_arch_mmio_base(i) + VIRTIO_MMIO_QUEUE_NOTIFY,
			.len = 4,
			.fd = m->queues[q].kick,
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};

		if (ioctl(b->vm_fd, KVM_IOEVENTFD, &kick) < 0)
			return err_errno(err, -errno, "KVM_IOEVENTFD");
	}
	return 0;
}

static int create_devices(struct backend *b, const struct backend_boot *boot, struct err *err)
{
	int r = 0;

	if (boot->n_devices > KVM_DEVICES_MAX)
		return err_set(err, -E2BIG, "more than %d devices", KVM_DEVICES_MAX);
	b->devices = calloc(boot->n_devices, sizeof(*b->devices));
	if (!b->devices)
		return err_nomem(err);
	for (size_t i = 0; r == 0 && i < boot->n_devices; i++) {
		r = virtio_mmio_init(&b->devices[i], b->loop, boot->devices[i], &b->mem, err);
		if (r == 0) {
			b->n_devices++;
			r = wire_device(b, i, err);
		}
	}
	return r;
}

static int make_cmdline(struct cmdline *c, const struct backend_boot *boot, struct err *err)
{
	int r;

	cmdline_init(c);
	r = cmdline_add_defaults(c, CMDLINE_KVM, err);
	if (r == 0 && boot->console)
		r = cmdline_add_console(c, err);
	for (size_t i = 0; i < boot->n_devices && r == 0; i++)
		r = cmdline_add_mmio(c, kvm_arch_mmio_base(i), kvm_arch_irq(i), err);
	return r < 0 ? r : cmdline_add(c, boot->cmdline, err);
}

static struct backend *new_backend(const struct backend_boot *boot)
{
	struct backend *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->loop = boot->loop;
	b->ended = boot->ended;
	b->console = boot->console;
	b->arg = boot->arg;
	b->kvm_fd = b->vm_fd = b->wake = -1;
	guestmem_init(&b->mem);
	/* Default attributes: cannot fail on Linux. */
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->applied, NULL);
	return b;
}

static int kvm_backend_boot(const struct backend_boot *boot, struct backend **ret, struct err *err)
{
	struct backend *b cleanup_with(kvm_backend_freep) = new_backend(boot);
	struct cmdline cmdline;
	int r;

	if (!b)
		return err_nomem(err);
	r = make_cmdline(&cmdline, boot, err);
	if (r < 0)
		return r;
	b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake < 0)
		return err_errno(err, -errno, "eventfd");
	r = ev_io_add(b->loop, &b->wake_io, b->wake, EPOLLIN, kvm_on_wake, b);
	if (r < 0)
		return err_errno(err, r, "backend kvm");
	r = open_kvm(b, err);
	if (r == 0)
		r = kvm_arch_ram(b, boot->memory_mib * (uint64_t)MIB, err);
	if (r == 0)
		r = give_memory(b, err);
	if (r == 0)
		r = create_vcpus(b, boot->vcpus, err);
	if (r == 0)
		r = create_devices(b, boot, err);
	if (r == 0)
		r = kvm_arch_load(b, boot, cmdline.text, err);
	if (r == 0)
		r = start_vcpus(b, err);
	if (r < 0)
		return r;
	log_debug("kvm: booted", "cmdline", cmdline.text);
	*ret = take_ptr(&b);
	return 0;
}

const struct backend_ops backend_kvm = {
	.name = "kvm",
	.boot = kvm_backend_boot,
	.kill = kvm_backend_kill,
	.free = kvm_backend_free,
};
