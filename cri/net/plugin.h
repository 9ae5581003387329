/*
 * One run of a CNI plug-in: a process with a time limit, at most NET_RESULT_MAX bytes of output,
 * and a session of its own, so that what it started is killed with it. Loop's thread.
 */
#ifndef HUSK_CRI_NET_PLUGIN_H
#define HUSK_CRI_NET_PLUGIN_H

#include <jansson.h>

#include "base/buf.h"
#include "base/loop.h"
#include "cri/net/conf.h"

#define PLUGIN_WORDS_MAX (4 * KIB) /* of its standard error: the end */
/* The descriptor of the attachment's lock, which a plug-in and its children keep until they end
 * (record.h). */
#define PLUGIN_LOCK_FD 3

struct plugin_call {
	char *const *bin_dirs; /* NULL-terminated */
	const char *type;
	enum cni_command command;
	/* NULL or "" = the variable is empty */
	const char *id, *netns, *ifname, *args;
	json_t *config; /* for its standard input */
	int lock_fd;	/* -1 = none */
	uint64_t timeout_ms;
};

struct plugin_run;
/* code 0: `out` is the object that it printed, borrowed; NULL where the command asks for none. Else
 * the text names the plug-in; run->cni_code is the code of its own error, 0 = it said none. The run
 * is over: its owner may start another or free it. */
typedef void (*plugin_fn)(struct plugin_run *run, int code, json_t *out, const struct err *err);

/* Embedded in its owner, all zero before its first use. */
struct plugin_run {
	struct loop *loop;
	enum cni_command command;
	char type[NET_CONF_NAME_MAX + 1];
	struct ev_child child; /* added = it runs */
	struct ev_timer timer;
	struct ev_io out_io, words_io;
	int out_fd, words_fd;
	struct buf out, words;
	bool timed_out, flood, aborted;
	uint64_t timeout_ms;
	int cni_code;
	plugin_fn done;
};

/* `call` is not needed any more when this returns. On failure `done` does not come. */
int plugin_start(struct plugin_run *run, struct loop *l, const struct plugin_call *call,
		 plugin_fn done, struct err *err) must_check;
bool plugin_runs(const struct plugin_run *run);
/* Kills it; `done` comes with -ECANCELED. */
void plugin_abort(struct plugin_run *run);
/* Kills it and waits for its end; `done` does not come. */
void plugin_stop(struct plugin_run *run);
/* Its program, in the first of the directories that has it; the caller's. -ENOENT, with a text. */
int plugin_find(char *const *bin_dirs, const char *type, char **ret, struct err *err) must_check;

#endif
