/*
 * virtio-net (virtio 1.2, 5.1): the one network card of a guest, one pair of queues. Behind it is a
 * tap, which comes while the VM runs; without one the card has no link, and what the guest sends is
 * dropped.
 *
 * A thread of the device's own (io_thread.h) moves packets between tap and guest memory without a
 * copy, one read or write for each. Checksums and segmentation are left to whoever needs them: the
 * header in front of a packet goes through, the guest's after it was checked. A tap that is full
 * stops the guest's sending queue, a guest without buffers leaves its packets in the tap. A tap
 * that fails (its namespace is gone) is a link that is down, and the VM goes on.
 *
 * The MAC address is a constant that the guest's side is expected to change, as the MTU: both are
 * not known when the guest's driver asks. Before virtio_net_start, and in tests, the caller's
 * thread serves. The functions below are for the main loop.
 */
#ifndef HUSK_VMM_DEV_NET_H
#define HUSK_VMM_DEV_NET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "vmm/dev/tap.h"
#include "vmm/io_thread.h"
#include "vmm/virtio/virtio.h"

/* 5.1.3 */
#define NET_F_CSUM (1ull << 0)
#define NET_F_GUEST_CSUM (1ull << 1)
#define NET_F_MAC (1ull << 5)
#define NET_F_GUEST_TSO4 (1ull << 7)
#define NET_F_GUEST_TSO6 (1ull << 8)
#define NET_F_GUEST_ECN (1ull << 9)
#define NET_F_HOST_TSO4 (1ull << 11)
#define NET_F_HOST_TSO6 (1ull << 12)
#define NET_F_HOST_ECN (1ull << 13)
#define NET_F_MRG_RXBUF (1ull << 15)
#define NET_F_STATUS (1ull << 16)
#define NET_F_GUEST_USO4 (1ull << 54)
#define NET_F_GUEST_USO6 (1ull << 55)
#define NET_F_HOST_USO (1ull << 56)
#define NET_F_GUEST_USO (NET_F_GUEST_USO4 | NET_F_GUEST_USO6)

#define NET_QUEUE_SIZE 256
/* An IP packet of 64 KiB with an Ethernet header and two VLAN tags. */
#define NET_PACKET_MAX (65535 + 14 + 8)
#define NET_FRAME_MAX (TAP_HEADER_LEN + NET_PACKET_MAX)
#define NET_SPILL (NET_FRAME_MAX + 1) /* so that one that is longer is seen */
/* Linux sends no segment with less; a host that cuts 64 KiB into smaller ones works for nothing. */
#define NET_GSO_SIZE_MIN 8

/* Buffers of the guest that are taken before a packet is read: as much as a packet can be, unless
 * the guest's are tiny. */
#define NET_RX_CHAINS 128
#define NET_RX_BUFFERS 256
/* A packet that waits for buffers is dropped when it did not fit so often. */
#define NET_RX_FAILURES 64 /* in a row: then the tap is of no use */
#define NET_RX_TRIES 64

struct net_rx {
	/* Chains that were popped, oldest first, and all their buffers. Empty between rounds. */
	unsigned n_chains, n_iov;
	size_t bytes;
	struct {
		uint16_t head;
		uint16_t n_iov;
		uint32_t len;
	} chains[NET_RX_CHAINS];
	struct iovec iov[NET_RX_BUFFERS + 1]; /* and what does not fit into them */
	bool large;			      /* packets need more than one chain of late */
	/* What was read and waits for buffers; also where the end of a packet goes. */
	size_t waits;
	unsigned tries, failures; /* failures: to read from the tap, in a row */
	uint8_t *spill;		  /* owned, NET_SPILL bytes; from the first tap on */
};

struct virtio_net {
	struct virtio_dev dev;
	struct io_thread thread;
	int tap;	   /* owned; -1 = none. Changes while the thread is held */
	uint64_t features; /* as acknowledged */
	bool tx_full;	   /* the tap takes no more: the thread's own */
	struct net_rx rx;  /* the thread's own */
	uint64_t rx_dropped, tx_dropped;

	atomic_bool link;
	atomic_int failed; /* errno of the tap; 0 = it works */
	int failed_fd;	   /* owned eventfd: the tap failed; -1 = not started */
	struct ev_io failed_io;
};

void virtio_net_init(struct virtio_net *n);
/* Before the device is given to a transport. Again is fine. */
int virtio_net_start(struct virtio_net *n, struct loop *loop, struct err *err) must_check;
void virtio_net_fini(struct virtio_net *n);
/* Takes over a tap that tap_prepare accepted, instead of the one it has: link up. On failure the
 * tap stays the caller's. */
int virtio_net_attach(struct virtio_net *n, int tap, struct err *err) must_check;
/* Closes the tap: link down. Nothing when there is none. */
void virtio_net_detach(struct virtio_net *n);

#endif
