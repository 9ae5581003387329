/*
 * What processes promise each other: numbers that the code of more than one process must agree on.
 * A limit that one process alone keeps stands in its own headers. Most are part of a protocol and
 * are named in its specification, base/proto/{agent,vmm}.proto; change both together.
 */
#ifndef HUSK_BASE_LIMITS_H
#define HUSK_BASE_LIMITS_H

#include "base/compiler.h"

/* A pod: huskd and shim refuse more, the agent has room for as many. */
#define POD_CONTAINERS_MAX 256u
#define POD_DISKS_MAX 640u /* attached in the guest at once: layers, and one for each container */

/* A pod's network: the shim refuses to mirror more, the agent refuses the request. */
#define POD_ADDRESSES_MAX 256u
#define POD_ROUTES_MAX 1024u
#define POD_NEIGHBOURS_MAX 1024u /* permanent ones */

/* A container: shim (OCI) and huskd (CRI) refuse more, the agent refuses the request. */
#define CONTAINER_ID_MAX 128u	     /* bytes; also of pods and execs */
#define CONTAINER_LOWERS_MAX 64u     /* read-only disks of its root file system */
#define CONTAINER_MOUNTS_MAX 1024u   /* beside the root */
#define CONTAINER_PATHS_MAX 1024u    /* masked, and as many read-only */
#define CONTAINER_PROCESSES_MAX 256u /* started by the host and alive */
/* Arguments, and as many variables of the environment; and all of them as the kernel counts: a
 * string, its NUL, a pointer. It takes 2 MiB, a quarter of the usual stack, so the limit that
 * people meet is the kernel's. What is beyond would not fit a message to the agent. */
#define PROCESS_ARGS_MAX 262144u
#define PROCESS_BYTES_MAX (3 * MIB)
/* In the process object of config.json, from huskd to the shim, beside "env": a list of "K=V" in
 * hexadecimal digits. CRI's values are bytes, JSON has none. */
#define PROCESS_ENV_HEX "husk.envHex"
#define PROCESS_GROUPS_MAX 1024u /* supplementary */

/* The virtual machine (vmm.proto, Boot): huskd, shim and monitor. */
#define VM_VCPUS_MAX 64u
#define VM_MEMORY_MIB_MIN 64u
#define VM_MEMORY_MIB_MAX 1048576u
#define VM_SECTOR_SIZE 512u
#define VM_DISK_SECTORS ((64ull << 40) / VM_SECTOR_SIZE) /* the one disk: 64 TiB */
#define VM_DISK_ALIGN 8u				 /* sectors; of windows: 4 KiB */

/* vsock: the agent connects to the host's port, the host to the agent's for each stream. */
#define VSOCK_AGENT_PORT 1024u
#define VSOCK_STREAM_PORT 1025u

/* The control socket between shim and monitor. */
#define VMCTL_PACKET_MAX (64 * KIB)
#define VMCTL_FDS_MAX 4u

/* Reserved for the write-ahead log of each SQLite database, which is as long before it is used
 * again from the start (1,000 pages): what is removed on a full disk is written there first. */
#define DB_WAL_RESERVE (4400 * KIB)

/* gRPC, one message: huskd, husk and other clients of CRI. */
#define RPC_MESSAGE_MAX (16u << 20)

#endif
