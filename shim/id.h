/* Names of pods, containers and execs, as they come from clients. Leaf functions, any thread. */
#ifndef HUSK_SHIM_ID_H
#define HUSK_SHIM_ID_H

#include <stdbool.h>

/* 1..CONTAINER_ID_MAX of [A-Za-z0-9_.-], the first one a letter or a digit: never a path. */
bool shim_id_valid(const char *id);

#endif
