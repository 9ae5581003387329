/*
 * Containers' cgroups: <root>/pod/<container id>, pure v2. PID 1 stays in the root cgroup. Loop
 * thread only, but for cgroup_remove.
 */
#ifndef HUSK_AGENT_PROC_CGROUP_H
#define HUSK_AGENT_PROC_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/agent.pb-c.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

struct cgroups {
	int pod;	/* descriptor of <root>/pod */
	char *pod_path; /* the same as a path, for inotify */
	int dev_prog;	/* the device rules, -1 = not loaded yet */
	int inotify;
	struct ev_io io;
	/* memory.events of the cgroup watched as `wd` changed. */
	void (*on_change)(int wd, void *arg);
	void *arg;
};

/* Makes <root>/pod and hands every controller down to it. */
int cgroups_init(struct cgroups *c, struct loop *l, const char *root,
		 void (*on_change)(int, void *), void *arg, struct err *err) must_check;
void cgroups_fini(struct cgroups *c);

/* A new cgroup with the values of `req`, the device rules unless privileged, and a watch on its OOM
 * kills (*ret_wd = -1 where the kernel has no memory controller). Its CPU time is not limited yet:
 * making a container ready is the agent's work, not its own. */
int cgroup_create(struct cgroups *c, const Agent__CreateContainerRequest *req, int *ret_fd,
		  int *ret_wd, struct err *err) must_check;
/* The limit of CPU time that `req` asks for: is there one, and set it. */
bool cgroup_limits_cpu(const Agent__CreateContainerRequest *req);
int cgroup_limit_cpu(int fd, const Agent__CreateContainerRequest *req, struct err *err) must_check;
void cgroup_unwatch(struct cgroups *c, int wd);
/* SIGKILL to all in it and below. */
int cgroup_kill(int fd) must_check;
/* Moves a process that is being killed to `root`, where it gets CPU time to die. Best effort. */
void cgroup_take_out(const char *root, pid_t pid);
/* Count of OOM kills so far; 0 where it cannot be known. */
uint64_t cgroup_oom_kills(int fd);
/* Pids (of the reader's pid namespace) in it and below, at most AGENT_PIDS_MAX. The caller frees
 * *ret. */
int cgroup_pids(int fd, pid_t **ret, size_t *ret_n, struct err *err) must_check;
/* The cgroup of a container's process `pid`: `cgroup` itself (of the container `id`), or one
 * below it that the container has made. The caller owns *ret_fd. -ESRCH: it is nowhere there. */
int cgroup_open_of(int cgroup, const char *id, pid_t pid, int *ret_fd) must_check;
/* Removes <pod>/<id> and what a container made below it. -EBUSY: something still runs. Missing = 0.
 */
int cgroup_remove(int pod, const char *id) must_check;

#endif
