/*
 * The agent's own limits, beside those that it promises to others (base/limits.h). A request beyond
 * one of either is refused with INVALID_ARGUMENT before anything is done.
 */
#ifndef HUSK_AGENT_LIMITS_H
#define HUSK_AGENT_LIMITS_H

#include "base/compiler.h"
#include "base/limits.h"

#define AGENT_EVENTS_KEPT 1024u

#define AGENT_HOSTNAME_MAX 64u /* __NEW_UTS_LEN */
#define AGENT_OPTIONS_MAX 64u  /* of one mount */
#define AGENT_RLIMITS_MAX 32u  /* of one process */
#define AGENT_SYSCTLS_MAX 256u /* of one request */
#define AGENT_CGROUP_FILES_MAX 128u
#define AGENT_VALUE_MAX 4096u  /* bytes of one sysctl or cgroup value, or of one mount option */
#define AGENT_NAME_MAX 256u    /* bytes of a sysctl's, cgroup file's or user's name */
#define AGENT_POD_FILE_MAX MIB /* hosts, resolv.conf */
#define AGENT_PIDS_MAX 65536u  /* listed or signalled of one container */
#define AGENT_CREATES_MAX 16u  /* that mount at one time; others wait */
#define AGENT_CGROUP_DEPTH 64  /* nested cgroups that a container may make */
#define AGENT_CGROUPS_MAX 4096 /* descendants that a container may make */

/* A child that has not come to exec after so long is ended, unless it only waits for its turn on
 * the CPU or for a disk: a container of 10m CPU with 200 busy threads is slow, not stuck. Such a
 * one gets the longer time, which is less than the shim waits for an answer. */
#define AGENT_START_LIMIT_S 10u
#define AGENT_START_SLOW_LIMIT_S 50u

#define AGENT_STREAMS_MAX 8192u	     /* streams that a process names, all containers */
#define AGENT_UNCLAIMED_MAX 256u     /* connections whose id no process has named yet */
#define AGENT_SUBSCRIBERS_MAX 8u     /* open Events streams */
#define AGENT_RELAY_BUF (16 * KIB)   /* terminals; pipes are spliced and need none */
#define AGENT_RELAY_ROUND (64 * KIB) /* bytes that a stream moves before the loop serves others */

#define AGENT_PASSWD_MAX MIB /* /etc/passwd, /etc/group of an image */

#endif
