/*
 * Users and groups of an image: /etc/passwd and /etc/group, untrusted bytes. The parser is
 * pure and bounded; files of more than AGENT_PASSWD_MAX bytes are refused.
 */
#ifndef HUSK_AGENT_PROC_USER_H
#define HUSK_AGENT_PROC_USER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/agent.pb-c.h"
#include "agent/limits.h"
#include "base/compiler.h"
#include "base/err.h"

#define USER_HOME_MAX 4096

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[PROCESS_GROUPS_MAX];
	size_t n_groups;
	char home[USER_HOME_MAX]; /* "/" when /etc/passwd does not say */
};

/* Who runs a process, by the rules of agent.proto's User (NULL = root), which are those of other
 * CRI runtimes: a name wins over a number; a number that /etc/passwd does not know has group 0;
 * the groups of /etc/group that list the user are joined, also when a group was named, unless
 * strict_groups. The primary group is among the groups: who drops it later does not lose it.
 * -ENOENT: no such user or group; -E2BIG: more than PROCESS_GROUPS_MAX groups. */
int user_resolve(const Agent__User *u, const char *passwd, size_t passwd_len, const char *group,
		 size_t group_len, struct user *ret, struct err *err) must_check;
/* The same, with the files read below `root` as far as they are needed; missing ones are empty. */
int user_lookup(int root, const Agent__User *u, struct user *ret, struct err *err) must_check;

#endif
