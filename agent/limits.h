/*
 * Every limit of the agent. The first group is promised in base/proto/agent.proto; a request beyond
 * one of them is refused with INVALID_ARGUMENT before anything is done.
 */
#ifndef HUSK_AGENT_LIMITS_H
#define HUSK_AGENT_LIMITS_H

#include "base/compiler.h"

#define AGENT_CONTAINERS_MAX 64u
#define AGENT_PROCESSES_MAX 256u /* of one container, started by the host, alive */
#define AGENT_DISKS_MAX 250u
#define AGENT_LOWER_MAX 64u
#define AGENT_MOUNTS_MAX 1024u
#define AGENT_ARGS_MAX 4096u
#define AGENT_ENV_MAX 4096u
#define AGENT_GROUPS_MAX 1024u
#define AGENT_EVENTS_KEPT 1024u

#define AGENT_ID_MAX 128u      /* bytes of a container or exec id */
#define AGENT_HOSTNAME_MAX 64u /* __NEW_UTS_LEN */
#define AGENT_PATHS_MAX 1024u  /* masked or read-only paths */
#define AGENT_OPTIONS_MAX 64u  /* of one mount */
#define AGENT_RLIMITS_MAX 32u  /* of one process */
#define AGENT_SYSCTLS_MAX 256u /* of one request */
#define AGENT_CGROUP_FILES_MAX 128u
#define AGENT_VALUE_MAX 4096u  /* bytes of one sysctl or cgroup value, or of one mount option */
#define AGENT_NAME_MAX 256u    /* bytes of a sysctl's, cgroup file's or user's name */
#define AGENT_POD_FILE_MAX MIB /* hosts, resolv.conf */
#define AGENT_CAP_LAST 40u     /* CAP_CHECKPOINT_RESTORE, the last of Linux 6.12 */
#define AGENT_PIDS_MAX 65536u  /* listed or signalled of one container */
#define AGENT_CGROUP_DEPTH 64  /* nested cgroups that a container may make */
#define AGENT_CGROUPS_MAX 4096 /* descendants that a container may make */

#define AGENT_STREAMS_MAX 8192u	     /* streams that a process names, all containers */
#define AGENT_UNCLAIMED_MAX 256u     /* connections whose id no process has named yet */
#define AGENT_SUBSCRIBERS_MAX 8u     /* open Events streams */
#define AGENT_RELAY_BUF (16 * KIB)   /* terminals; pipes are spliced and need none */
#define AGENT_RELAY_ROUND (64 * KIB) /* bytes a stream moves before others have their turn */

#define AGENT_PASSWD_MAX MIB /* /etc/passwd, /etc/group of an image */

#endif
