/* Which pods and containers a list call asks for. All conditions are ANDed. Leaf functions. */
#ifndef HUSK_CRI_RUNTIME_FILTERS_H
#define HUSK_CRI_RUNTIME_FILTERS_H

#include <stdbool.h>

#include "cri/store/state.h"

/* CRI's view; CREATING has none, such objects are in no list. */
Cri__PodSandboxState pod_cri_state(const struct pod *p);
Cri__ContainerState container_cri_state(const struct container *c);

/* NULL matches all that are visible. */
bool filter_pod(const Cri__PodSandboxFilter *f, const struct pod *p);
bool filter_container(const Cri__ContainerFilter *f, const struct container *c);

#endif
