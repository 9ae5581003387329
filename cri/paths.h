/*
 * Where huskd's files are: <state>/{pods,containers,exec,shim} and
 * <root>/{husk.db,images,containers}. Paths are the caller's to free; NULL without memory. Loop's
 * thread.
 */
#ifndef HUSK_CRI_PATHS_H
#define HUSK_CRI_PATHS_H

#include "base/compiler.h"
#include "base/err.h"

struct huskd;

/* Makes the directories and takes root and state for this process until the two descriptors are
 * closed, by the caller, also after a failure: -1 = none. -EBUSY: another huskd has one of them. */
int path_prepare(const struct huskd *d, int ret_locks[2], struct err *err) must_check;

/* -ENOSPC, with the directory and what to do: root or state have less free than disk_reserve()
 * (base/util.h) leaves to what runs. */
int path_check_space(const struct huskd *d, struct err *err) must_check;

char *path_db(const struct huskd *d);
char *path_images(const struct huskd *d);
char *path_net(const struct huskd *d); /* what is kept of the pods' networks */

/* What holds one directory for each pod, container and running ExecSync, by id. */
char *path_pods(const struct huskd *d);		   /* bundles */
char *path_containers(const struct huskd *d);	   /* bundles */
char *path_containers_data(const struct huskd *d); /* scratch disks */
char *path_execs(const struct huskd *d);	   /* FIFOs */

char *path_shims(const struct huskd *d); /* the sockets of the shims */

char *path_pod(const struct huskd *d, const char *pod_id);
char *path_container(const struct huskd *d, const char *id);
char *path_container_data(const struct huskd *d, const char *id);
char *path_scratch(const struct huskd *d, const char *id); /* the disk in the data directory */
char *path_exec(const struct huskd *d, const char *exec_id);

#endif
