#include "image/address.h"
#include "image/registry/registry.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

char *registry_copy(const char *s, bool *ok)
{
	char *c = s ? strdup(s) : NULL;

	*ok = *ok && (!s || c);
	return c;
}

/* ---- work ---- */

/* Until the next request can go on by itself. */
static int patience(const struct registry *r, int timeout_ms)
{
	uint64_t now = now_mono_ns(), ms;

	for (const struct request *q = r->list; q; q = q->next) {
		if (q->step == STEP_REPLAY && !sink_full(&q->sink))
			return 0;
		if (q->step != STEP_PAUSE || q->waits)
			continue;
		ms = q->retry_ns > now ? (q->retry_ns - now) / NS_PER_MS + 1 : 0;
		timeout_ms = (int)MIN_OF(ms, (uint64_t)timeout_ms);
	}
	return timeout_ms;
}

static int wait_for_work(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
			 struct err *err)
{
	struct curl_waitfd w[REGISTRY_MAX_REQUESTS + 1] = { { .fd = extra_fd,
							      .events = CURL_WAIT_POLLIN } };
	unsigned n = 1;

	for (struct request *q = r->list; q && n <= REGISTRY_MAX_REQUESTS; q = q->next)
		if (q->op == REGISTRY_LAYER && sink_full(&q->sink))
			w[n++] = (struct curl_waitfd){ .fd = q->sink.pipe_fd,
						       .events = CURL_WAIT_POLLOUT };
	if (curl_multi_poll(r->multi, w, n, patience(r, timeout_ms), NULL) != CURLM_OK)
		return err_set(err, -EIO, "waiting for the network failed");
	*ret_extra = w[0].revents != 0;
	return 0;
}

int registry_poll(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err)
{
	struct request *next;
	CURLMsg *m;
	int running, left, e = wait_for_work(r, extra_fd, ret_extra, timeout_ms, err);
	uint64_t now = now_mono_ns();

	if (e < 0)
		return e;
	for (struct request *q = r->list; q; q = next) {
		next = q->next;
		request_work(q, now);
	}
	if (curl_multi_perform(r->multi, &running) != CURLM_OK)
		return err_set(err, -EIO, "the transfer machine failed");
	while ((m = curl_multi_info_read(r->multi, &left)))
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
		return err_set(err, r, "no memory");
	r = url_split(h->url, &ep->origin, &ep->name, &port, err);
	if (r < 0)
		return r;
	ep->label = strdup(strstr(h->url, "://") + 3);
	if (!ep->label)
		return err_set(err, -ENOMEM, "no memory");
	ep->label[strcspn(ep->label, "/")] = 0;
	ep->loopback = host_is_loopback(ep->name) || address_kind(ep->name) == ADDRESS_LOOPBACK;
	ep->local = ep->loopback;
	return 0;
}

static int set_options(struct registry *r, const struct registry_options *o, struct err *err)
{
	bool ok = true;

	r->host = registry_copy(o->host, &ok);
	r->user = registry_copy(o->user, &ok);
	r->password = registry_copy(o->user && !o->password ? "" : o->password, &ok);
	r->identity_token = registry_copy(o->identity_token, &ok);
	r->token = registry_copy(o->token, &ok);
	r->http_proxy = registry_copy(o->http_proxy, &ok);
	r->https_proxy = registry_copy(o->https_proxy, &ok);
	r->no_proxy = registry_copy(o->no_proxy, &ok);
	r->retry_base_ms = o->retry_base_ms ? o->retry_base_ms : RETRY_BASE_MS;
	r->stall_s = o->stall_s ? o->stall_s : REGISTRY_STALL_S;
	r->multi = curl_multi_init();
	if (!ok || !r->multi)
		return err_set(err, -ENOMEM, "no memory");
	for (size_t k = 0; k < o->hosts->n; k++) {
		int e = endpoint_init(&r->endpoints[k], &o->hosts->v[k], err);

		r->n_endpoints = k + 1;
		if (e < 0)
			return e;
	}
	return 0;
}

int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret, struct err *err)
{
	struct registry *r;
	int e;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, -ENOMEM, "libcurl does not start");
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(err, -ENOMEM, "no memory");
	r->done = done;
	r->progress = progress;
	r->arg = arg;
	e = set_options(r, o, err);
	if (e < 0) {
		registry_free(r);
		return e;
	}
	*ret = r;
	return 0;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	while (r->list) {
		struct request *q = r->list;

		r->list = q->next;
		request_free(q);
	}
	tokens_fini(r);
	for (size_t k = 0; k < r->n_endpoints; k++) {
		host_fini(&r->endpoints[k].host);
		free(r->endpoints[k].origin);
		free(r->endpoints[k].name);
		free(r->endpoints[k].label);
	}
	if (r->multi)
		curl_multi_cleanup(r->multi);
	free(r->host);
	free(r->user);
	free(r->password);
	free(r->identity_token);
	free(r->token);
	free(r->http_proxy);
	free(r->https_proxy);
	free(r->no_proxy);
	free(r);
}
