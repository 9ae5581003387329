#include "cri/net/chain.h"

#include <errno.h>

#include "base/check.h"
#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/result.h"

static int chain_step(struct chain *c, struct err *err);
static void chain_on_plugin(struct plugin_run *run, int code, json_t *out, const struct err *err);

static size_t chain_index(const struct chain *c)
{
	return c->call.command == CNI_DEL ? c->call.list->n - 1 - c->done_n : c->done_n;
}

/* Commands of 1.1 that a plug-in of an older version would not know. */
static bool needs_1_1(const struct chain *c)
{
	return c->call.command == CNI_STATUS || c->call.command == CNI_GC;
}

static void chain_finish(struct chain *c, int code, const struct err *err)
{
	struct err e = *err;

	c->running = false;
	c->cni_code = c->run.cni_code;
	c->done(c, code, &e);
}

static int run_config(struct chain *c, size_t i, json_t **ret, struct err *err)
{
	const struct chain_call *call = &c->call;
	/* DEL has one from 0.4.0 on, and no other command but ADD and CHECK (specification,
	 * "Deriving request configuration"). */
	bool prev = call->command == CNI_ADD ||
		    ((call->command == CNI_DEL || call->command == CNI_CHECK) &&
		     call->list->version >= CNI_0_4_0);

	if (c->asking) {
		*ret = json_pack("{s:s}", "cniVersion", cni_version_name(call->list->version));
		return *ret ? 0 : err_nomem(err);
	}
	return net_list_config(call->list, i, call->caps, prev ? c->prev : NULL, call->extra, ret,
			       err);
}

static int start_plugin(struct chain *c, size_t i, struct err *err)
{
	const struct chain_call *call = &c->call;
	cleanup_json json_t *config = NULL;
	struct plugin_call pc = { .bin_dirs = call->bin_dirs,
				  .type = net_list_type(call->list, i),
				  .command = c->asking ? CNI_VERSION : call->command,
				  .id = call->id,
				  .netns = call->netns,
				  .ifname = call->ifname,
				  .args = call->args,
				  .lock_fd = call->lock_fd,
				  .timeout_ms = call->timeout_ms };
	int r = run_config(c, i, &config, err);

	pc.config = config;
	if (r == 0)
		r = plugin_start(&c->run, c->loop, &pc, chain_on_plugin, err);
	return r;
}

/* Starts the next plug-in; 1 = there is none left. */
static int chain_step(struct chain *c, struct err *err)
{
	for (; c->done_n < c->call.list->n; c->done_n++) {
		size_t i = chain_index(c);

		c->asking = false;
		if (needs_1_1(c)) {
			if (c->call.versions->speaks_1_1[i] < 0)
				continue;
			c->asking = c->call.versions->speaks_1_1[i] == 0;
		}
		return start_plugin(c, i, err);
	}
	return 1;
}

static bool speaks_1_1(json_t *answer)
{
	json_t *list = json_object_get(answer, "supportedVersions"), *v;
	size_t i;

	json_array_foreach (list, i, v) {
		if (cni_version_parse(json_string_value(v)) >= CNI_1_1_0)
			return true;
	}
	return false;
}

static int take_result(struct chain *c, json_t *out, struct err *err)
{
	cleanup_net_result struct net_result *res = NULL;
	int r = net_result_parse(out, &res, err);

	if (r == 0)
		r = net_result_convert(out, c->call.list->version, err);
	if (r < 0)
		return err_wrap(err, r, "the result of plug-in %s", c->run.type);
	json_decref(c->prev);
	c->prev = json_incref(out);
	return c->on_result ? c->on_result(c, err) : 0;
}

static void chain_on_plugin(struct plugin_run *run, int code, json_t *out, const struct err *why)
{
	struct chain *c = container_of(run, struct chain, run);
	struct err err = *why;
	int r = code;

	if (r == 0 && c->asking) {
		c->call.versions->speaks_1_1[chain_index(c)] = speaks_1_1(out) ? 1 : -1;
	} else {
		if (r == 0 && c->call.command == CNI_ADD)
			r = take_result(c, out, &err);
		if (r < 0 && r != -ECANCELED && c->call.command == CNI_GC) {
			if (c->gc_code == 0) {
				c->gc_code = r;
				c->gc_err = err;
			}
			r = 0;
		}
		if (r == 0)
			c->done_n++;
	}
	if (r == 0 && c->aborted)
		r = err_set(&err, -ECANCELED, "not wanted any more");
	if (r == 0)
		r = chain_step(c, &err);
	if (r == 1 && c->gc_code < 0)
		chain_finish(c, c->gc_code, &c->gc_err);
	else if (r != 0)
		chain_finish(c, r == 1 ? 0 : r, &err);
}

int chain_start(struct chain *c, struct loop *l, const struct chain_call *call,
		int (*on_result)(struct chain *, struct err *), chain_fn done, struct err *err)
{
	int r;

	check(!c->running);
	json_decref(c->prev);
	*c = (struct chain){ .loop = l,
			     .call = *call,
			     .prev = json_incref(call->prev),
			     .on_result = on_result,
			     .done = done };
	c->call.prev = NULL;
	r = chain_step(c, err);
	c->running = r == 0;
	/* No plug-in has anything to do: said at once, as nobody of our callers starts such. */
	return r == 1 ? err_set(err, -ENOENT, "no plug-in knows %s",
				cni_command_name(call->command))
		      : r;
}

void chain_abort(struct chain *c)
{
	if (!c->running)
		return;
	c->aborted = true;
	plugin_abort(&c->run);
}

void chain_stop(struct chain *c)
{
	plugin_stop(&c->run);
	c->running = false;
	json_decref(c->prev);
	c->prev = NULL;
}
