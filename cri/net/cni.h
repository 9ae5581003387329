/*
 * Words of the Container Network Interface that several files here share: versions and codes of
 * errors (specification 1.1.0, "Versioning", "Error"). Leaf functions.
 */
#ifndef HUSK_CRI_NET_CNI_H
#define HUSK_CRI_NET_CNI_H

#include <stdbool.h>

#include "base/compiler.h"

/* Ordered. */
enum cni_version { CNI_0_3_1, CNI_0_4_0, CNI_1_0_0, CNI_1_1_0, CNI_VERSIONS };

enum cni_command { CNI_ADD, CNI_DEL, CNI_CHECK, CNI_VERSION, CNI_STATUS, CNI_GC };

#define CNI_CODE_NOT_AVAILABLE 50 /* of STATUS: ADD would not work */
#define CNI_CODE_LIMITED 51	  /* of STATUS: as above, and what runs may have no network */
#define CNI_SUPPORTED "0.3.1, 0.4.0, 1.0.0 and 1.1.0" /* for texts */

/* -1: one that we do not speak. NULL is fine. */
int cni_version_parse(const char *text) must_check;
const char *cni_version_name(enum cni_version v);
const char *cni_command_name(enum cni_command c);

#endif
