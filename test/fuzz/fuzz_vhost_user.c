/*
 * vhost-user messages of a hostile front end. The input is a list of messages: request (one byte),
 * a byte that says how many descriptors and how much payload, then the payload.
 */
#include "test/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fdpass.h"
#include "base/util.h"
#include "vmm/virtio/vhost_user.h"
#include "vmm/dev/rng.h"

#define MESSAGES_MAX 64
#define RAM (64 * KIB)

static struct loop *loop;

static void on_failed(void *arg, const char *why)
{
}

static void send_message(int fd, struct cur *c, int ram, int event)
{
	uint32_t h[3] = { cur_u8(c), 1, 0 };
	uint8_t how = cur_u8(c), payload[320];
	int fds[3] = { how & 4 ? ram : event, ram, ram };
	struct iovec iov[2] = { { h, sizeof(h) }, { payload, 0 } };
	size_t n;

	h[0] %= 28;
	h[2] = (uint32_t)MIN_OF(MIN_OF((how >> 3) * 8u, cur_left(c)), sizeof(payload));
	if (how == 0xff) /* a header of its own */
		cur_copy(c, h, sizeof(h));
	n = MIN_OF(h[2], MIN_OF(sizeof(payload), cur_left(c)));
	cur_copy(c, payload, n);
	iov[1].iov_len = n;
	(void)!fdpass_sendv(fd, iov, 2, fds, how & 3, MSG_DONTWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vhost_user vu;
	struct virtio_rng rng;
	struct cur c = cur_of(data, size);
	cleanup_fd int ram = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	cleanup_fd int event = eventfd(1, EFD_CLOEXEC);
	uint8_t answer[400];
	int sv[2];

	if (!loop && loop_new(&loop, NULL) < 0)
		return 0;
	if (ftruncate(ram, RAM) < 0 || fcntl(ram, F_ADD_SEALS, F_SEAL_SHRINK) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return 0;
	virtio_rng_init(&rng, loop);
	fuzz_assert(vhost_user_init(&vu, loop, &rng.dev, sv[1], on_failed, NULL, NULL) == 0);
	for (int i = 0; i < MESSAGES_MAX && cur_left(&c) > 0 && vu.fd >= 0; i++) {
		send_message(sv[0], &c, ram, event);
		for (int k = 0; k < 4 && loop_once(loop, 0) > 0; k++)
			;
		while (recv(sv[0], answer, sizeof(answer), MSG_DONTWAIT) > 0)
			;
	}
	vhost_user_fini(&vu);
	close(sv[0]);
	fuzz_assert(vu.mem.n == 0 && !rng.dev.started);
	return 0;
}
