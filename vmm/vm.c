#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/backend/probe.h"

int vm_choice_parse(const char *s, enum vm_choice *ret)
{
	static const char *const names[] = {
		[VM_AUTO] = "auto", [VM_KVM] = "kvm", [VM_QEMU] = "qemu"
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(s, names[i])) {
			*ret = (enum vm_choice)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *vm_state_name(enum vm_state s)
{
	static const char *const names[] = {
		[VM_NEW] = "new", [VM_RUNNING] = "running", [VM_ENDED] = "ended"
	};

	return names[s];
}

void vm_init(struct vm *vm, struct loop *loop, const struct vm_config *config,
	     const struct vm_events *events)
{
	*vm = (struct vm){ .loop = loop, .config = *config, .events = *events };
	window_init(&vm->windows);
	virtio_blk_init(&vm->blk, &vm->windows);
	virtio_vsock_init(&vm->vsock, loop, VM_GUEST_CID);
	console_init(&vm->console);
	virtio_rng_init(&vm->rng, loop);
	virtio_net_init(&vm->net);
	vm->devices[0] = &vm->blk.dev;
	vm->devices[1] = &vm->vsock.dev;
	vm->devices[2] = &vm->rng.dev;
	vm->devices[3] = &vm->net.dev;
}

void vm_fini(struct vm *vm)
{
	if (vm->ops)
		vm->ops->free(vm->backend);
	vm->backend = NULL;
	ev_io_del(&vm->room_io);
	console_fini(&vm->console);
	virtio_net_fini(&vm->net);
	virtio_rng_fini(&vm->rng);
	virtio_vsock_fini(&vm->vsock);
	virtio_blk_fini(&vm->blk);
	window_fini(&vm->windows);
}

#ifdef HUSK_BACKEND_KVM
static const struct backend_ops *const kvm = &backend_kvm;
#else
static const struct backend_ops *const kvm; /* not for this machine */
#endif

static int choose_backend(struct vm *vm, struct err *err)
{
	struct probe_result p;

	if (vm->config.choice == VM_KVM && !kvm)
		return err_set(err, -ENOSYS, "this build has no backend kvm; use qemu");
	if (vm->config.choice != VM_AUTO || !kvm) {
		vm->ops = vm->config.choice == VM_KVM ? kvm : &backend_qemu;
		snprintf(vm->reason, sizeof(vm->reason), "%s",
			 vm->config.choice == VM_AUTO ? "the only one of this build"
			 : vm->config.backend_reason  ? vm->config.backend_reason
						      : "asked for");
		return 0;
	}
	probe_kvm(&p);
	vm->ops = p.usable ? kvm : &backend_qemu;
	snprintf(vm->reason, sizeof(vm->reason), "%s%s",
		 p.usable ? "" : "kvm is not usable: ", p.reason);
	return 0;
}

/* The one place that changes it. */
static void set_state(struct vm *vm, enum vm_state to)
{
	check(to == vm->state + 1); /* NEW -> RUNNING -> ENDED */
	vm->state = to;
}

static void vm_on_agent(void *arg)
{
	struct vm *vm = arg;

	vm->times.agent_ready = now_mono_ns();
	vm->events.agent_connected(vm->events.arg);
}

static void vm_on_console(void *arg, const void *data, size_t n)
{
	struct vm *vm = arg;

	console_output(&vm->console, data, n);
}

static void vm_on_ended(void *arg, enum end_reason reason, const char *message)
{
	struct vm *vm = arg;

	set_state(vm, VM_ENDED);
	vm->events.ended(vm->events.arg, reason, message);
}

static void vm_on_room(struct ev_io *io, uint32_t events)
{
	struct vm *vm = io->arg;
	struct blk_room room;

	virtio_blk_room(&vm->blk, &room);
	if (vm->state == VM_RUNNING)
		vm->events.disk_room(vm->events.arg, &room);
}

/* Again is fine. */
static int start_disk(struct vm *vm, struct err *err)
{
	int r = virtio_blk_start(&vm->blk, err);

	if (r < 0 || vm->room_io.loop)
		return r;
	r = ev_io_add(vm->loop, &vm->room_io, vm->blk.room_fd, EPOLLIN, vm_on_room, vm);
	return r < 0 ? err_errno(err, r, "disk") : 0;
}

static int wrong_state(const struct vm *vm, struct err *err)
{
	return err_set(err, -EPROTO, "the VM is %s", vm_state_name(vm->state));
}

static int check_boot(const struct vm *vm, const struct vm_boot *b, struct err *err)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (b->vcpus < 1 || b->vcpus > VM_VCPUS_MAX)
		return err_set(err, -EINVAL, "vcpus must be 1 to %u", VM_VCPUS_MAX);
	if (b->memory_mib < VM_MEMORY_MIB_MIN || b->memory_mib > VM_MEMORY_MIB_MAX)
		return err_set(err, -EINVAL, "memory must be %u to %u MiB", VM_MEMORY_MIB_MIN,
			       VM_MEMORY_MIB_MAX);
	if (getsockopt(*b->agent_fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return err_set(err, -EINVAL, "the agent's channel is not a stream socket");
	if (access(vm->config.kernel, R_OK) < 0)
		return err_errno(err, -errno, "guest kernel %s (--kernel; made by 'make kernel')",
				 vm->config.kernel);
	if (access(vm->config.initramfs, R_OK) < 0)
		return err_errno(err, -errno, "initramfs %s (--initramfs)", vm->config.initramfs);
	return 0;
}

int vm_boot(struct vm *vm, const struct vm_boot *b, struct err *err)
{
	uint64_t begin = now_mono_ns();
	struct backend_boot boot = {
		.loop = vm->loop,
		.kernel = vm->config.kernel,
		.initramfs = vm->config.initramfs,
		.cmdline = b->cmdline,
		.vcpus = b->vcpus,
		.memory_mib = b->memory_mib,
		.devices = vm->devices,
		.n_devices = VM_DEVICES,
		.qemu_path = vm->config.qemu_path,
		.qemu_args = vm->config.qemu_args,
		.ended = vm_on_ended,
		.arg = vm,
	};
	int r;

	if (vm->state != VM_NEW)
		return wrong_state(vm, err);
	r = check_boot(vm, b, err);
	if (r == 0 && !vm->ops)
		r = choose_backend(vm, err);
	if (r == 0)
		r = start_disk(vm, err);
	if (r == 0)
		r = virtio_net_start(&vm->net, vm->loop, err);
	if (r < 0)
		return r;
	console_set_sink(&vm->console, take_fd(b->console_fd));
	if (vm->console.sink >= 0)
		boot.console = vm_on_console;
	r = vm->ops->boot(&boot, &vm->backend, err);
	if (r < 0) {
		console_set_sink(&vm->console, -1);
		return err_wrap(err, r, "boot with backend %s", vm->ops->name);
	}
	virtio_vsock_set_agent(&vm->vsock, take_fd(b->agent_fd), vm_on_agent, vm);
	set_state(vm, VM_RUNNING);
	vm->times = (struct vm_times){ .boot = begin, .vcpu_start = now_mono_ns() };
	log_debug("booted", "backend", vm->ops->name, "why", vm->reason);
	return 0;
}

void vm_kill(struct vm *vm)
{
	if (vm->state == VM_RUNNING)
		vm->ops->kill(vm->backend);
}

int vm_map_window(struct vm *vm, uint64_t first, uint64_t sectors, int *fd, bool readonly,
		  struct err *err)
{
	int r;

	if (vm->state == VM_ENDED)
		return wrong_state(vm, err);
	r = window_map(&vm->windows, first, sectors, *fd, readonly, err);
	if (r == 0)
		*fd = -1;
	return r;
}

int vm_unmap_window(struct vm *vm, uint64_t first, struct err *err)
{
	int fd, r;

	if (vm->state == VM_ENDED)
		return wrong_state(vm, err);
	r = window_unmap(&vm->windows, first, &fd, err);
	if (r == 0)
		virtio_blk_close(&vm->blk, fd);
	return r;
}

int vm_connect_vsock(struct vm *vm, uint32_t port, int *fd, struct err *err)
{
	int r;

	if (vm->state != VM_RUNNING)
		return wrong_state(vm, err);
	r = virtio_vsock_connect(&vm->vsock, port, *fd, err);
	if (r == 0)
		*fd = -1;
	return r;
}

int vm_attach_tap(struct vm *vm, int *fd, struct err *err)
{
	int r;

	if (vm->state == VM_ENDED)
		return wrong_state(vm, err);
	r = tap_prepare(*fd, err);
	if (r == 0)
		r = virtio_net_attach(&vm->net, *fd, err);
	if (r == 0)
		*fd = -1;
	return r;
}

void vm_detach_tap(struct vm *vm)
{
	virtio_net_detach(&vm->net);
}

pid_t vm_backend_pid(const struct vm *vm)
{
	return vm->backend && vm->ops->pid ? vm->ops->pid(vm->backend) : 0;
}
