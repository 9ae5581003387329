/* Names and numbers of signals, as CRI's enum and image configurations write them. Leaf functions.
 */
#ifndef HUSK_CRI_RPC_SIGNALS_H
#define HUSK_CRI_RPC_SIGNALS_H

#include "base/compiler.h"
#include "proto/cri.pb-c.h"

/* "SIGTERM", "term", "15", "SIGRTMIN+3", "RTMAX-1" -> Linux number 1..64. -EINVAL. */
int signal_parse(const char *s, int *ret) must_check;
/* CRI enum -> Linux number; 0 for RUNTIME_DEFAULT and unknown values. */
int signal_of_cri(Cri__Signal s);
/* Linux number -> CRI enum; RUNTIME_DEFAULT when it has none. */
Cri__Signal signal_to_cri(int signo);

#endif
