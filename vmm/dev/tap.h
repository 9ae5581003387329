/*
 * What a virtio-net device asks of a tap: a descriptor of /dev/net/tun that somebody else has
 * joined to an interface of a network namespace. Leaf functions.
 */
#ifndef HUSK_VMM_DEV_TAP_H
#define HUSK_VMM_DEV_TAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* The header in front of each packet, both ways: struct virtio_net_hdr_v1. */
#define TAP_HEADER_LEN 12

/* Checks that it is a tap with headers and makes its headers TAP_HEADER_LEN bytes, its reads and
 * writes non-blocking. -EINVAL: something else. */
int tap_prepare(int fd, struct err *err) must_check;
/* What the guest takes, as features of virtio-net: the host sends it nothing else. */
void tap_set_offloads(int fd, uint64_t features);
/* The host's kernel knows segmentation of UDP. */
bool tap_knows_uso(void);

#endif
