/*
 * One VM: its fixed set of devices, the backend that runs it, and its life: NEW -> RUNNING ->
 * ENDED. What the control socket asks for ends up here. Main loop thread.
 */
#ifndef HUSK_VMM_VM_H
#define HUSK_VMM_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"
#include "vmm/backend/backend.h"
#include "vmm/dev/blk.h"
#include "vmm/dev/console.h"
#include "vmm/dev/net.h"
#include "vmm/dev/rng.h"
#include "vmm/dev/vsock.h"
#include "vmm/window.h"

#define VM_DEVICES 4

enum vm_state { VM_NEW, VM_RUNNING, VM_ENDED };

enum vm_choice { VM_AUTO, VM_KVM, VM_QEMU };

struct vm_config { /* all borrowed */
	enum vm_choice choice;
	const char *backend_reason; /* why it is not VM_AUTO; NULL = it was asked for */
	const char *kernel, *initramfs;
	const char *qemu_path;
	char *const *qemu_args;
};

/* Called on the loop, never inside a vm_* function. */
struct vm_events {
	void (*agent_connected)(void *arg);
	void (*ended)(void *arg, enum end_reason reason, const char *message);
	/* The room for what the guest writes got low, or is there again. */
	void (*disk_room)(void *arg, const struct blk_room *room);
	void *arg;
};

struct vm_times { /* CLOCK_MONOTONIC, ns; 0 = not yet */
	uint64_t boot, vcpu_start, agent_ready;
};

struct vm {
	struct loop *loop;
	struct vm_config config;
	struct vm_events events;
	enum vm_state state;
	struct vm_times times;
	const struct backend_ops *ops; /* NULL = not chosen yet */
	struct backend *backend;
	char reason[320]; /* why this backend */

	struct window_table windows;
	struct virtio_blk blk;
	struct ev_io room_io; /* of blk.room_fd */
	struct virtio_vsock vsock;
	struct console console;
	struct virtio_rng rng;
	struct virtio_net net;
	struct virtio_dev *devices[VM_DEVICES];
};

/* Parses "auto", "kvm", "qemu". -EINVAL. */
int vm_choice_parse(const char *s, enum vm_choice *ret) must_check;

void vm_init(struct vm *vm, struct loop *loop, const struct vm_config *config,
	     const struct vm_events *events);
/* Ends the VM if it runs, without callback; closes everything. */
void vm_fini(struct vm *vm);

struct vm_boot {
	unsigned vcpus;
	uint32_t memory_mib;
	const char *cmdline;
	int *agent_fd;	 /* taken (set to -1) on success; a stream socket */
	int *console_fd; /* taken; -1 = none */
};
/* -EPROTO: not NEW; -EINVAL, -ENOENT: what was asked; else what the backend says. On failure the
 * VM is as before and may be booted again. */
int vm_boot(struct vm *vm, const struct vm_boot *b, struct err *err) must_check;
void vm_kill(struct vm *vm); /* leads to `ended`; nothing when it does not run */

/* Take *fd (set to -1) on success. -EPROTO: wrong state; else as window_map, window_unmap and
 * virtio_vsock_connect. */
int vm_map_window(struct vm *vm, uint64_t first, uint64_t sectors, int *fd, bool readonly,
		  struct err *err) must_check;
int vm_unmap_window(struct vm *vm, uint64_t first, struct err *err) must_check;
int vm_connect_vsock(struct vm *vm, uint32_t port, int *fd, struct err *err) must_check;
/* Takes *fd (set to -1) on success. -EPROTO: wrong state; -EINVAL: not a tap as it should be. */
int vm_attach_tap(struct vm *vm, int *fd, struct err *err) must_check;
void vm_detach_tap(struct vm *vm);

const char *vm_state_name(enum vm_state s);
pid_t vm_backend_pid(const struct vm *vm); /* 0 = none */

#endif
