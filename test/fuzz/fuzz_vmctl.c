/* One packet of the control socket, with 0 to 4 descriptors (the first byte says which). */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/vmctl.h"

static struct loop *loop;

static void on_closed(void *arg, int code, const char *why)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm vm;
	struct vmctl ctl;
	struct err err = { 0 };
	int sv[2], pair[2], fds[VMCTL_FDS_MAX];
	const struct vm_config config = { .choice = VM_QEMU,
					  .kernel = "/nonexistent",
					  .initramfs = "/nonexistent",
					  .qemu_path = "/nonexistent" };
	const struct vm_events events = { vmctl_agent_connected, vmctl_ended, vmctl_disk_room,
					  &ctl };
	int r;
	size_t n_fds;

	if (size < 1 || size > VMCTL_PACKET_MAX || (!loop && loop_new(&loop, NULL) < 0) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return 0;
	vm_init(&vm, loop, &config, &events);
	fuzz_assert(vmctl_init(&ctl, loop, sv[1], &vm, on_closed, NULL, &err) == 0);
	if (data[0] & 8) /* a state that cannot be reached without a kernel */
		vm.state = VM_ENDED;
	n_fds = (data[0] & 7) % (VMCTL_FDS_MAX + 1);
	for (size_t i = 0; i < n_fds; i++)
		fds[i] = data[0] & 16 ? memfd_create("w", MFD_CLOEXEC)
				      : fcntl(pair[0], F_DUPFD_CLOEXEC, 3);
	r = vmctl_take(&ctl, data + 1, size - 1, fds, n_fds, &err);
	fuzz_assert(r == 0 || r == -EBADMSG);
	for (size_t i = 0; i < n_fds; i++)
		fuzz_assert(fds[i] == -1);
	vmctl_fini(&ctl);
	vm_fini(&vm);
	close(sv[0]);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
