#include "cri/net/net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/net/attach.h"
#include "cri/net/json.h"
#include "cri/net/netns.h"
#include "cri/net/pod.h"

static const char *const default_bin_dirs[] = { "/opt/cni/bin", "/usr/lib/cni", NULL };

/* ---- open and close ---- */

static void net_on_conf(void *arg)
{
	struct net *n = arg;

	chain_stop(&n->status_chain);
	net_list_free(n->status_list);
	n->status_list = NULL;
	n->versions = (struct chain_versions){ 0 };
	n->status_at_ns = 0;
	n->configured = n->configured || n->conf.list;
}

static void net_on_record(void *arg, const char *id)
{
	struct net *n = arg;
	struct record rec = { 0 };
	struct attach *a;
	struct err err = { 0 };
	int r = record_read(n->dir, id, &rec, &err);

	if (r == 0)
		r = attach_new(n, &rec, &a, &err);
	if (r < 0) {
		record_fini(&rec);
		log_error(
			"what is kept of a pod's network cannot be used; its addresses stay taken",
			"dir", n->dir, "pod", id, "err", err_text(&err));
		return;
	}
	if (a->rec.complete && net_result_parse(a->rec.result, &a->result, &err) < 0) {
		log_error("the result of a pod's network is damaged", "pod", id, "err",
			  err_text(&err));
		a->rec.complete = false;
	}
}

static int copy_options(struct net *n, const struct net_options *o)
{
	char *const *dirs = o->bin_dirs ? o->bin_dirs : (char *const *)default_bin_dirs;
	size_t k = strv_len(dirs);

	n->loop = o->loop;
	n->queue_last = &n->queue;
	n->plugin_ms = o->plugin_ms ? o->plugin_ms : NET_PLUGIN_MS;
	n->retry_ms = o->retry_ms ? o->retry_ms : NET_RETRY_MIN_MS;
	n->dir = strdup(o->dir);
	n->netns_dir = strdup(o->netns_dir ? o->netns_dir : NET_NETNS_DIR);
	n->bin_dirs = calloc(k + 1, sizeof(*n->bin_dirs));
	if (!n->dir || !n->netns_dir || !n->bin_dirs)
		return -ENOMEM;
	for (size_t i = 0; i < k; i++) {
		n->bin_dirs[i] = strdup(dirs[i]);
		if (!n->bin_dirs[i])
			return -ENOMEM;
	}
	return 0;
}

int net_open(const struct net_options *o, struct net **ret, struct err *err)
{
	struct net *n = calloc(1, sizeof(*n));
	int r = n && copy_options(n, o) == 0 ? 0 : err_nomem(err);

	if (r == 0)
		r = mkdir_p(n->dir, 0700, err);
	if (r == 0)
		r = netns_dir_prepare(n->netns_dir, err);
	if (r == 0)
		r = record_scan(n->dir, net_on_record, n, err);
	if (r == 0)
		r = confdir_open(&n->conf, n->loop, o->conf_dir ? o->conf_dir : NET_CONF_DIR,
				 net_on_conf, n, err);
	if (r < 0) {
		net_close(n);
		return r;
	}
	n->configured = n->conf.list || n->first;
	*ret = n;
	return 0;
}

void net_close(struct net *n)
{
	if (!n)
		return;
	while (n->first)
		attach_free(n->first);
	confdir_close(&n->conf);
	chain_stop(&n->status_chain);
	chain_stop(&n->gc_chain);
	while (!waits_empty(&n->gcs))
		(void)!waits_pop(&n->gcs);
	net_list_free(n->status_list);
	net_list_free(n->gc_list);
	json_decref(n->gc_extra);
	free(n->dir);
	free(n->netns_dir);
	strv_free(n->bin_dirs);
	free(n);
}

/* ---- readiness ---- */

static void net_on_status(struct chain *c, int code, const struct err *err)
{
	struct net *n = container_of(c, struct net, status_chain);

	n->status_at_ns = now_mono_ns();
	n->status_code = code;
	n->status_err = *err;
	chain_stop(c);
}

static void ask_status(struct net *n)
{
	struct chain_call call = { .bin_dirs = n->bin_dirs,
				   .command = CNI_STATUS,
				   .versions = &n->versions,
				   .lock_fd = -1,
				   .timeout_ms = n->plugin_ms };
	struct err err = { 0 };
	int r = 0;

	if (n->status_chain.running ||
	    (n->status_at_ns && now_mono_ns() - n->status_at_ns < NET_STATUS_MS * NS_PER_MS))
		return;
	if (!n->status_list)
		r = net_list_of(n->conf.list->json, &n->status_list, &err);
	call.list = n->status_list;
	if (r == 0)
		r = chain_start(&n->status_chain, n->loop, &call, NULL, net_on_status, &err);
	if (r < 0)
		net_on_status(&n->status_chain, r == -ENOENT ? 0 : r, &err);
}

/* Are the programs there? */
static int find_plugins(struct net *n, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < n->conf.list->n && r == 0; i++) {
		cleanup_free char *path = NULL;

		r = plugin_find(n->bin_dirs, net_list_type(n->conf.list, i), &path, err);
	}
	return r;
}

bool net_configured(const struct net *n)
{
	return n->configured;
}

void net_status(struct net *n, struct net_status *ret)
{
	const struct net_list *l = n->conf.list;
	struct err err = { 0 };
	int r;

	*ret = (struct net_status){ .network = l ? l->name : NULL, .file = n->conf.file };
	if (!l) {
		r = err_set(&err, -ENETDOWN, "%s", n->conf.why);
	} else {
		r = find_plugins(n, &err);
		if (r == 0 && l->version >= CNI_1_1_0) {
			ask_status(n);
			r = n->status_code;
			if (!n->status_at_ns)
				r = err_set(&err, -EAGAIN, "its plug-ins are being asked");
			else if (r < 0)
				err = n->status_err;
		}
		if (r < 0)
			(void)err_wrap(&err, r, "network %s (%s)", l->name, n->conf.file);
	}
	ret->ready = r == 0;
	ret->reason = r == 0 ? "" : "NetworkPluginNotReady";
	if (r < 0)
		(void)snprintf(ret->message, sizeof(ret->message), "%s", err_text(&err));
}

/* ---- pods ---- */

static int make_record(struct net *n, const char *id, const Cri__PodSandboxConfig *pod,
		       struct record *rec, struct err *err)
{
	int r = net_pod_args(id, pod, &rec->args, err);

	if (r == 0)
		r = net_pod_caps(pod, &rec->caps, err);
	if (r < 0)
		return r;
	rec->id = strdup(id);
	rec->ifname = strdup(NET_IFNAME);
	rec->netns = str_fmt("%s/husk-%s", n->netns_dir, id);
	rec->list = json_incref(n->conf.list->json);
	return rec->id && rec->ifname && rec->netns ? 0 : err_nomem(err);
}

int net_add(struct net *n, const char *id, const Cri__PodSandboxConfig *pod, net_add_fn done,
	    void *arg, struct err *err)
{
	struct record rec = { 0 };
	struct attach *a;
	int r = 0;

	if (!n->conf.list)
		return err_set(err, -ENETDOWN, "%s", n->conf.why);
	if (attach_find(n, id))
		return err_set(err, -EEXIST, "the pod has a network already");
	/* Else DEL could not be run either. */
	r = find_plugins(n, err);
	if (r == 0)
		r = make_record(n, id, pod, &rec, err);
	if (r == 0)
		r = attach_new(n, &rec, &a, err);
	record_fini(&rec);
	if (r < 0)
		return r;
	a->want_add = true;
	a->add_done = done;
	a->add_arg = arg;
	r = attach_next(a, err);
	if (r < 0)
		attach_free(a);
	return r;
}

void net_add_cancel(struct net *n, const char *id)
{
	struct attach *a = attach_find(n, id);

	if (!a || a->rec.complete || !a->add_done)
		return;
	a->add_done = NULL;
	attach_doom(a);
	attach_kick(a);
}

bool net_has(const struct net *n, const char *id)
{
	return attach_find(n, id) != NULL;
}

int net_del(struct net *n, const char *id, wait_fn done, void *arg, struct err *err)
{
	struct attach *a = attach_find(n, id);
	int r;

	if (!a)
		return err_set(err, -ENOENT, "the pod has no network");
	r = waits_add(&a->dels, done, arg);
	if (r < 0)
		return err_nomem(err);
	ev_timer_del(&a->retry);
	attach_doom(a);
	r = attach_next(a, err);
	if (r < 0) {
		waits_remove(&a->dels, arg);
		attach_kick(a); /* once more, or later */
	}
	return r;
}

void net_del_forget(struct net *n, const char *id, const void *arg)
{
	struct attach *a = attach_find(n, id);

	if (a)
		waits_remove(&a->dels, arg);
}

int net_check(struct net *n, const char *id, wait_fn done, void *arg, struct err *err)
{
	struct attach *a = attach_find(n, id);
	int r;

	if (!a || a->doomed || !a->rec.complete)
		return err_set(err, -ENOENT, "the pod has no network");
	if (a->list->version < CNI_0_4_0 || a->list->no_check)
		return err_set(err, -ENOTSUP, "network %s has no CHECK", a->list->name);
	if (waits_add(&a->checks, done, arg) < 0)
		return err_nomem(err);
	r = attach_next(a, err);
	if (r < 0)
		waits_remove(&a->checks, arg);
	return r;
}

void net_check_forget(struct net *n, const char *id, const void *arg)
{
	struct attach *a = attach_find(n, id);

	if (a)
		waits_remove(&a->checks, arg);
}

int net_find(const struct net *n, const char *id, struct net_view *ret)
{
	const struct attach *a = attach_find(n, id);

	if (!a || a->doomed || !a->rec.complete || !a->result)
		return -ENOENT;
	*ret = (struct net_view){ .id = a->rec.id,
				  .ifname = a->rec.ifname,
				  .netns = a->rec.netns,
				  .network = a->list->name,
				  .result = a->result,
				  .json = a->rec.result };
	return 0;
}

size_t net_addresses(const struct net_view *v, struct net_addr *ret, size_t max)
{
	const struct net_result *res = v->result;
	size_t n = 0;

	for (size_t i = 0; i < res->n_ips && n < max; i++) {
		int k = res->ips[i].interface;

		if (k < 0 ||
		    (res->interfaces[k].in_pod && str_eq(res->interfaces[k].name, v->ifname)))
			ret[n++] = res->ips[i].address;
	}
	return n;
}

void net_reap(struct net *n, bool (*keep)(void *arg, const char *id), void *arg)
{
	for (struct attach *a = n->first, *next; a; a = next) {
		next = a->next;
		if (a->doomed || a->want_add || a->op == ATTACH_ADD ||
		    (a->rec.complete && keep(arg, a->rec.id)))
			continue;
		log_info("taking down a network that no pod has", "pod", a->rec.id);
		attach_doom(a);
		attach_kick(a);
	}
}

/* ---- GC ---- */

static void net_on_gc(struct chain *c, int code, const struct err *err)
{
	struct net *n = container_of(c, struct net, gc_chain);
	struct err e = *err;

	chain_stop(c);
	attach_run_queue(n);
	waits_run(&n->gcs, code, &e);
}

/* {"cni.dev/valid-attachments": [{"containerID": ID, "ifname": NAME}, ...]} */
static json_t *valid_attachments(const struct net *n)
{
	json_t *list = json_array();

	for (const struct attach *a = n->first; a; a = a->next) {
		if (json_array_append_new(list, json_pack("{s:s, s:s}", "containerID", a->rec.id,
							  "ifname", a->rec.ifname)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return json_pack("{s:o}", "cni.dev/valid-attachments", list);
}

static int gc_start(struct net *n, struct err *err)
{
	struct chain_call call = { .bin_dirs = n->bin_dirs,
				   .command = CNI_GC,
				   .versions = &n->gc_versions,
				   .lock_fd = -1,
				   .timeout_ms = n->plugin_ms };
	int r;

	net_list_free(n->gc_list);
	n->gc_list = NULL;
	json_decref(n->gc_extra);
	n->gc_versions = (struct chain_versions){ 0 };
	n->gc_extra = valid_attachments(n);
	if (!n->gc_extra)
		return err_nomem(err);
	r = net_list_of(n->conf.list->json, &n->gc_list, err);
	call.list = n->gc_list;
	call.extra = n->gc_extra;
	if (r == 0)
		r = chain_start(&n->gc_chain, n->loop, &call, NULL, net_on_gc, err);
	return r;
}

int net_gc(struct net *n, wait_fn done, void *arg, struct err *err)
{
	const struct net_list *l = n->conf.list;
	int r = 0;

	if (!l || l->version < CNI_1_1_0 || l->no_gc)
		return err_set(err, -ENOTSUP, "the network has no GC");
	if (waits_add(&n->gcs, done, arg) < 0)
		return err_nomem(err);
	if (!n->gc_chain.running)
		r = gc_start(n, err);
	if (r < 0)
		waits_remove(&n->gcs, arg);
	return r;
}
