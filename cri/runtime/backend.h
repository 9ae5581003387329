/*
 * Which backend `auto` means on this host. Asked once, of `husk-vmm --probe`, while huskd starts:
 * a probe takes up to a quarter of a second where /dev/kvm hangs, and that is not to be spent at
 * each pod. A pod that comes before the answer lets its own monitor probe. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_BACKEND_H
#define HUSK_CRI_RUNTIME_BACKEND_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/loop.h"

#define BACKEND_ANSWER_MAX (16 * KIB)
#define BACKEND_PROBE_MS 5000
/* What people are to know of QEMU's TCG, which `auto` takes without KVM. */
#define BACKEND_TCG "slow, and no border against a hostile guest; 'backend: kvm' refuses it"

struct backend {
	char name[8];	  /* "kvm", "qemu"; "" = not known (yet) */
	char reason[300]; /* for people; "" as long as name is */
	struct ev_child child;
	struct ev_io out;
	struct ev_timer timer;
	struct buf answer;
	int fd;
};

/* Starts the probe; logs what came out, or why nothing did (then the monitors probe for
 * themselves). vmm: path of husk-vmm, NULL = beside the running program. */
void backend_probe(struct backend *b, struct loop *loop, const char *vmm);
/* Fine on a zeroed one, too. */
void backend_fini(struct backend *b);
/* Does `auto` mean QEMU, for lack of KVM? */
bool backend_fell_back(const struct backend *b, const char *configured);
/* What to pass on to a shim: the answer if `configured` is "auto" and the answer is there. */
const char *backend_name(const struct backend *b, const char *configured);

#endif
