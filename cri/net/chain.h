/*
 * One command to all plug-ins of a network, one after the other: ADD, CHECK, STATUS and GC in the
 * order of the list, DEL in the reverse one. Loop's thread.
 */
#ifndef HUSK_CRI_NET_CHAIN_H
#define HUSK_CRI_NET_CHAIN_H

#include "cri/net/plugin.h"

/* What plug-ins say to VERSION, asked once for each configuration; all zero = not asked. */
struct chain_versions {
	signed char speaks_1_1[NET_CONF_PLUGINS_MAX]; /* 1 yes, -1 no */
};

struct chain_call {
	const struct net_list *list;
	char *const *bin_dirs;
	enum cni_command command;
	const char *id, *netns, *ifname, *args; /* as in plugin_call */
	json_t *caps;				/* values by capability; NULL = none */
	json_t *prev;				/* the cached result; NULL = none */
	json_t *extra;				/* further members of each configuration, of GC */
	struct chain_versions *versions;	/* of STATUS and GC */
	int lock_fd;
	uint64_t timeout_ms; /* of each plug-in */
};

struct chain;
/* It is over. code and err: of the plug-in that ended it; of GC, which goes on, the first. */
typedef void (*chain_fn)(struct chain *c, int code, const struct err *err);

/* Embedded in its owner, all zero before its first use. Of what `call` points to, all must stay
 * until `done`, but `prev`. */
struct chain {
	struct loop *loop;
	struct chain_call call;
	size_t done_n; /* plug-ins that are done */
	json_t *prev;  /* owned; of ADD: the last plug-in's result, also after a failure */
	struct plugin_run run;
	bool running, aborted, asking; /* asking: VERSION, before the command itself */
	int gc_code, cni_code;
	struct err gc_err;
	/* Of ADD, after each plug-in: `prev` is to be kept. A failure ends the chain. May be NULL.
	 */
	int (*on_result)(struct chain *c, struct err *err);
	chain_fn done;
};

int chain_start(struct chain *c, struct loop *l, const struct chain_call *call,
		int (*on_result)(struct chain *, struct err *), chain_fn done,
		struct err *err) must_check;
/* Kills the plug-in at work; `done` comes with -ECANCELED. */
void chain_abort(struct chain *c);
/* `done` does not come any more; frees what the chain has. Fine at any time. */
void chain_stop(struct chain *c);

#endif
