#include "image/address.h"
#include "image/registry/registry.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

/* ---- work ---- */

/* How long nothing can happen without the network, at most timeout_ms. */
static int patience(const struct registry *reg, int timeout_ms)
{
	uint64_t now = now_mono_ns(), ms;

	for (const struct request *q = reg->list; q; q = q->next) {
		if (q->ops->ready && q->ops->ready(q))
			return 0;
		if (q->step != STEP_PAUSE || q->token_id)
			continue;
		ms = q->retry_ns > now ? (q->retry_ns - now) / NS_PER_MS + 1 : 0;
		timeout_ms = (int)MIN_OF(ms, (uint64_t)timeout_ms);
	}
	return timeout_ms;
}

static int wait_for_work(struct registry *reg, int extra_fd, bool *ret_extra, int timeout_ms,
			 struct err *err)
{
	struct curl_waitfd w[REGISTRY_MAX_REQUESTS + 1] = { { .fd = extra_fd,
							      .events = CURL_WAIT_POLLIN } };
	unsigned n = 1;

	for (struct request *q = reg->list; q && n <= REGISTRY_MAX_REQUESTS; q = q->next) {
		int fd = q->ops->blocked_fd ? q->ops->blocked_fd(q) : -1;

		if (fd >= 0)
			w[n++] = (struct curl_waitfd){ .fd = fd, .events = CURL_WAIT_POLLOUT };
	}
	if (curl_multi_poll(reg->multi, w, n, patience(reg, timeout_ms), NULL) != CURLM_OK)
		return err_set(err, -EIO, "waiting for the network failed (curl_multi_poll)");
	*ret_extra = w[0].revents != 0;
	return 0;
}

int registry_poll(struct registry *reg, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err)
{
	struct request *next;
	CURLMsg *m;
	int running, left, r = wait_for_work(reg, extra_fd, ret_extra, timeout_ms, err);
	uint64_t now = now_mono_ns();

	if (r < 0)
		return r;
	for (struct request *q = reg->list; q; q = next) {
		next = q->next;
		request_work(q, now);
	}
	layers_check_pace(reg, now);
	if (curl_multi_perform(reg->multi, &running) != CURLM_OK)
		return err_set(err, -EIO, "the transfers failed (curl_multi_perform)");
	while ((m = curl_multi_info_read(reg->multi, &left)))
		if (m->msg == CURLMSG_DONE)
			exchange_on_curl(m);
	return 0;
}

/* ---- the client ---- */

static int endpoint_init(struct endpoint *ep, const struct host *h, struct err *err)
{
	unsigned port;
	int r = host_copy(h, &ep->host);

	if (r < 0)
		return err_nomem(err);
	r = url_split(h->url, &ep->origin, &ep->name, &port, err);
	if (r < 0)
		return r;
	ep->label = strdup(strstr(h->url, "://") + 3);
	if (!ep->label)
		return err_nomem(err);
	ep->label[strcspn(ep->label, "/")] = 0;
	ep->kind = address_kind_of_host(ep->name);
	ep->loopback = ep->kind == ADDRESS_LOOPBACK;
	return 0;
}

/* NULL gives NULL; *ok becomes false without memory. */
static char *copy(const char *s, bool *ok)
{
	char *c = s ? strdup(s) : NULL;

	*ok = *ok && (!s || c);
	return c;
}

static int set_options(struct registry *reg, const struct registry_options *o, struct err *err)
{
	bool ok = true;
	int r = 0;

	reg->host = copy(o->host, &ok);
	reg->user = copy(o->user, &ok);
	reg->password = copy(o->user && !o->password ? "" : o->password, &ok);
	reg->identity_token = copy(o->identity_token, &ok);
	reg->token = copy(o->token, &ok);
	reg->http_proxy = copy(o->http_proxy, &ok);
	reg->https_proxy = copy(o->https_proxy, &ok);
	reg->no_proxy = copy(o->no_proxy, &ok);
	reg->retry_base_ms = o->retry_base_ms ? o->retry_base_ms : RETRY_BASE_MS;
	reg->stall_s = o->stall_s ? o->stall_s : REGISTRY_STALL_S;
	reg->multi = curl_multi_init();
	if (!ok || !reg->multi)
		return err_nomem(err);
	for (size_t k = 0; k < o->hosts->n && r == 0; k++) {
		r = endpoint_init(&reg->endpoints[k], &o->hosts->v[k], err);
		reg->n_endpoints = k + 1;
	}
	return r;
}

int registry_prepare(struct err *err)
{
	CURLcode c = curl_global_init(CURL_GLOBAL_DEFAULT);

	return c == CURLE_OK ? 0
			     : err_set(err, -EIO, "libcurl cannot be initialised: %s",
				       curl_easy_strerror(c));
}

int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret, struct err *err)
{
	struct registry *reg;
	int r = registry_prepare(err);

	if (r < 0)
		return r;
	reg = calloc(1, sizeof(*reg));
	if (!reg)
		return err_nomem(err);
	reg->done = done;
	reg->progress = progress;
	reg->arg = arg;
	reg->tokens.ready = request_on_token;
	r = set_options(reg, o, err);
	if (r < 0) {
		registry_free(reg);
		return r;
	}
	*ret = reg;
	return 0;
}

void registry_free(struct registry *reg)
{
	if (!reg)
		return;
	while (reg->list) {
		struct request *q = reg->list;

		reg->list = q->next;
		request_free(q);
	}
	tokens_fini(reg);
	for (size_t k = 0; k < reg->n_endpoints; k++) {
		host_fini(&reg->endpoints[k].host);
		free(reg->endpoints[k].origin);
		free(reg->endpoints[k].name);
		free(reg->endpoints[k].label);
	}
	if (reg->multi)
		curl_multi_cleanup(reg->multi);
	free(reg->host);
	free(reg->user);
	free(reg->password);
	free(reg->identity_token);
	free(reg->token);
	free(reg->http_proxy);
	free(reg->https_proxy);
	free(reg->no_proxy);
	free(reg);
}
