/*
 * A network's configuration as administrators and CNI daemons write it: a list of plug-ins
 * (.conflist), or one plug-in (.conf, .json), which is a list of one. No I/O; fuzzed. Leaf
 * functions; a list does not change once it is made.
 */
#ifndef HUSK_CRI_NET_CONF_H
#define HUSK_CRI_NET_CONF_H

#include <jansson.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cri/net/cni.h"

#define NET_CONF_MAX (256 * KIB) /* a file */
#define NET_CONF_PLUGINS_MAX 32u
#define NET_CONF_NAME_MAX 128u /* bytes; of a network, of a plug-in */

struct net_list {
	json_t *json; /* as a .conflist; owned */
	const char *name;
	enum cni_version version; /* the highest that the file offers and we speak */
	size_t n;		  /* plug-ins, at least one */
	bool no_check, no_gc;
};

/* `single`: the text is one plug-in's. The errors say what is wrong, not in which file: -EPROTO,
 * -EFBIG, -ENOTSUP (versions that we do not speak), -EINVAL. */
int net_list_parse(const char *text, size_t len, bool single, struct net_list **ret,
		   struct err *err) must_check;
/* Of what `json` of another list was, e.g. in a file of ours; takes a reference of its own. */
int net_list_of(json_t *json, struct net_list **ret, struct err *err) must_check;
void net_list_free(struct net_list *l);
void net_list_freep(struct net_list **l);
#define cleanup_net_list cleanup_with(net_list_freep)

/* The name of a plug-in's program. Never a path. */
const char *net_list_type(const struct net_list *l, size_t i);
/* What plug-in i reads: its own part with the network's name and version, of `caps` (by capability;
 * NULL = none) what it says that it has, prevResult (NULL = none), and the members of `extra`. */
int net_list_config(const struct net_list *l, size_t i, json_t *caps, json_t *prev, json_t *extra,
		    json_t **ret, struct err *err) must_check;

#endif
