/*
 * The directory of network configurations: the lexically first one that is valid is in force, and
 * changes are seen by inotify, also when the directory is made, moved or removed later. Loop's
 * thread. Reading is bounded: NET_CONF_FILES_MAX files of NET_CONF_MAX bytes.
 */
#ifndef HUSK_CRI_NET_CONFDIR_H
#define HUSK_CRI_NET_CONFDIR_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "cri/net/conf.h"

#define NET_CONF_FILES_MAX 64u
/* Files are written one after the other; what comes within this time is read once. */
#define NET_CONF_SETTLE_MS 50

struct confdir {
	struct loop *loop;
	char *path;
	struct net_list *list; /* NULL = none is valid */
	char *file;	       /* where it is from */
	char why[400];	       /* for people: why there is none, or which were passed over; "" */
	int inotify_fd, watch;
	struct ev_io io;
	struct ev_timer settle;
	void (*on_change)(void *arg); /* after `list` became another */
	void *arg;
};

/* Reads once. Only what makes watching impossible is an error; that no configuration is there is
 * not. `path` is copied. */
int confdir_open(struct confdir *d, struct loop *l, const char *path, void (*on_change)(void *),
		 void *arg, struct err *err) must_check;
void confdir_close(struct confdir *d); /* fine on a zeroed one */

#endif
