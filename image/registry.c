#include "image/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <curl/curl.h>
#include <jansson.h>
#include <openssl/evp.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/registry_auth.h"

#define STASH_MAX (1 * MIB) /* what a full pipe could not take of one delivery */
#define PROGRESS_EVERY_NS (100 * NS_PER_MS)

static const char accept_manifest[] =
	"Accept: application/vnd.oci.image.index.v1+json, "
	"application/vnd.docker.distribution.manifest.list.v2+json, "
	"application/vnd.oci.image.manifest.v1+json, "
	"application/vnd.docker.distribution.manifest.v2+json";

struct transfer {
	struct registry *reg;
	struct transfer *next;
	uint32_t id;
	CURL *easy;
	struct curl_slist *headers;
	char *url, *repository;
	bool token_step; /* it is the token service that answers now */
	bool authorized; /* credentials or a token were sent already */
	bool manifest;
	long status;
	struct auth_challenge challenge;
	char media_type[256];
	/* documents */
	struct buf body;
	uint64_t max;
	/* layers */
	int out_fd;
	EVP_MD_CTX *sha;
	struct buf stash;
	char digest[DIGEST_LEN + 1];
	uint64_t size, fetched;
	uint64_t last_progress_ns;
	bool paused;   /* libcurl holds data back until the pipe has room */
	bool draining; /* all has come and is right; the pipe takes the rest */
	bool local_ip; /* the first connection went to this machine or a link-local address */
	int first_connection;
	/* why a callback ended the transfer */
	struct err err;
};

struct registry {
	CURLM *multi;
	char *host, *base, *user, *password;
	char *token; /* for `token_repository` */
	char *token_repository;
	bool fixed_token, loopback;
	struct transfer *list;
	unsigned n;
	registry_done_fn done;
	registry_progress_fn progress;
	void *arg;
};

static void transfer_free(struct transfer *t)
{
	if (!t)
		return;
	if (t->easy) {
		curl_multi_remove_handle(t->reg->multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	curl_slist_free_all(t->headers);
	fd_close(&t->out_fd);
	EVP_MD_CTX_free(t->sha);
	buf_fini(&t->body);
	buf_fini(&t->stash);
	free(t->url);
	free(t->repository);
	free(t);
}

static bool is_layer(const struct transfer *t)
{
	return t->sha != NULL;
}

/* Ends the request: the answer goes out when everything of it has been freed but the result. */
static void finish(struct transfer *t, int code, const struct err *err)
{
	struct registry *r = t->reg;
	struct registry_result res = { .media_type = t->media_type, .fetched = t->fetched };
	struct transfer **at = &r->list;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	r->n--;
	fd_close(&t->out_fd);
	if (!is_layer(t)) {
		res.len = buf_len(&t->body);
		res.data = res.len ? (const void *)buf_data(&t->body) : "";
	}
	r->done(r->arg, t->id, code, code < 0 ? NULL : &res, err);
	transfer_free(t);
}

/* ---- bytes of the answer ---- */

/* What the pipe could not take. 0: all is written; 1: some is left. */
static int write_stash(struct transfer *t)
{
	while (buf_len(&t->stash)) {
		ssize_t n = buf_write_fd(&t->stash, t->out_fd);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return 1;
		if (n < 0)
			return err_errno(&t->err, (int)n, "hand the layer to the unpacker");
	}
	return 0;
}

static size_t layer_bytes(struct transfer *t, const char *data, size_t len)
{
	uint64_t now;

	if (buf_len(&t->stash)) {
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (len > t->size - t->fetched) {
		err_set(&t->err, -EBADMSG, "blob %s is larger than the %llu bytes of its manifest",
			t->digest, (unsigned long long)t->size);
		return 0;
	}
	if (!EVP_DigestUpdate(t->sha, data, len) || buf_put(&t->stash, data, len) < 0) {
		err_set(&t->err, -ENOMEM, "no memory");
		return 0;
	}
	t->fetched += len;
	if (write_stash(t) < 0)
		return 0;
	now = now_mono_ns();
	if (now - t->last_progress_ns >= PROGRESS_EVERY_NS) {
		t->last_progress_ns = now;
		t->reg->progress(t->reg->arg, t->id, t->fetched);
	}
	return len;
}

static size_t on_data(char *data, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;
	long status = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (is_layer(t) && !t->token_step && status == 200)
		return layer_bytes(t, data, len);
	/* Of an error's body a little is enough: it may say why. */
	if (status >= 300 && buf_len(&t->body) + len > REGISTRY_MAX_TOKEN)
		return len;
	if (buf_len(&t->body) + len > (t->token_step ? REGISTRY_MAX_TOKEN : t->max)) {
		err_set(&t->err, -EFBIG, "answer of more than %llu bytes",
			(unsigned long long)(t->token_step ? REGISTRY_MAX_TOKEN : t->max));
		return 0;
	}
	if (buf_put(&t->body, data, len) < 0) {
		err_set(&t->err, -ENOMEM, "no memory");
		return 0;
	}
	return len;
}

static size_t on_header(char *data, size_t one, size_t len, void *arg)
{
	static const char www[] = "www-authenticate:";
	struct transfer *t = arg;

	size_t n = len;

	if (n >= 5 && !strncasecmp(data, "HTTP/", 5))
		memset(&t->challenge, 0,
		       sizeof(t->challenge)); /* a new answer: of a redirect, say */
	if (n < sizeof(www) || strncasecmp(data, www, sizeof(www) - 1))
		return len;
	while (n >= sizeof(www) && (data[n - 1] == '\r' || data[n - 1] == '\n'))
		n--;
	/* One that cannot be understood is as good as none: the 401 is reported then. */
	(void)!auth_challenge_parse(data + sizeof(www) - 1, n - (sizeof(www) - 1), &t->challenge);
	return len;
}

/*
 * Called when a connection is there and before a request is sent on it: the first one of a transfer
 * goes where the caller asked; later ones are redirects.
 */
static int on_connected(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	struct transfer *t = arg;
	bool local = address_is_local(remote_ip);

	if (t->first_connection++ == 0 && !t->token_step) {
		t->local_ip = local;
		return CURL_PREREQFUNC_OK;
	}
	if (local && !t->local_ip) {
		err_set(&t->err, -EPROTO,
			"the registry sends us to %s, an address of this machine "
			"or link",
			remote_ip);
		return CURL_PREREQFUNC_ABORT;
	}
	return CURL_PREREQFUNC_OK;
}

/* ---- requests ---- */

static int setup_easy(struct transfer *t, const char *url)
{
	struct registry *r = t->reg;
	const char *schemes = str_starts(r->base, "https:") ? "https" : "http,https";
	CURL *e = t->easy;
	bool ok = true;

#define SET(option, value) (ok = ok && curl_easy_setopt(e, option, value) == CURLE_OK)
	curl_easy_reset(e);
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROTOCOLS_STR, schemes);
	SET(CURLOPT_REDIR_PROTOCOLS_STR, schemes);
	SET(CURLOPT_FOLLOWLOCATION, t->token_step ? 0L : 1L);
	SET(CURLOPT_MAXREDIRS, (long)REGISTRY_MAX_REDIRECTS);
	SET(CURLOPT_CONNECTTIMEOUT, (long)REGISTRY_CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, (long)REGISTRY_LOW_SPEED_BYTES);
	SET(CURLOPT_LOW_SPEED_TIME, (long)REGISTRY_LOW_SPEED_S);
	if (!is_layer(t) || t->token_step)
		SET(CURLOPT_TIMEOUT, (long)REGISTRY_DOCUMENT_TIMEOUT_S);
	SET(CURLOPT_USERAGENT, "husk/" HUSK_VERSION);
	SET(CURLOPT_WRITEFUNCTION, on_data);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_PREREQFUNCTION, on_connected);
	SET(CURLOPT_PREREQDATA, t);
	SET(CURLOPT_BUFFERSIZE, 256L * 1024);
	if (t->manifest && !t->token_step)
		SET(CURLOPT_HTTPHEADER, t->headers);
#undef SET
	return ok ? 0 : -ENOMEM;
}

static int set_credentials(struct transfer *t)
{
	struct registry *r = t->reg;
	bool ok = true;

	if (!t->token_step && r->token &&
	    (r->fixed_token || str_eq(r->token_repository, t->repository))) {
		ok = curl_easy_setopt(t->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER) ==
			     CURLE_OK &&
		     curl_easy_setopt(t->easy, CURLOPT_XOAUTH2_BEARER, r->token) == CURLE_OK;
		t->authorized = true;
	} else if (r->user && (t->token_step || t->challenge.scheme == AUTH_BASIC)) {
		ok = curl_easy_setopt(t->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC) ==
			     CURLE_OK &&
		     curl_easy_setopt(t->easy, CURLOPT_USERNAME, r->user) == CURLE_OK &&
		     curl_easy_setopt(t->easy, CURLOPT_PASSWORD, r->password) == CURLE_OK;
		t->authorized = !t->token_step;
	}
	return ok ? 0 : -ENOMEM;
}

static int submit(struct transfer *t, const char *url, struct err *err)
{
	int r = setup_easy(t, url);

	if (r >= 0)
		r = set_credentials(t);
	if (r >= 0 && curl_multi_add_handle(t->reg->multi, t->easy) != CURLM_OK)
		r = -ENOMEM;
	buf_clear(&t->body);
	return r < 0 ? err_set(err, r, "cannot set up the request") : 0;
}

static int transfer_new(struct registry *r, const struct registry_request *q, struct transfer **ret,
			struct err *err)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t) {
		int fd = q->out_fd;
		fd_close(&fd);
		return err_set(err, -ENOMEM, "no memory");
	}
	t->reg = r;
	t->id = q->id;
	t->out_fd = q->out_fd;
	t->size = q->size;
	t->max = q->max;
	buf_init(&t->body, MAX_OF(q->max, REGISTRY_MAX_TOKEN));
	buf_init(&t->stash, STASH_MAX);
	t->manifest = q->reference != NULL;
	t->easy = curl_easy_init();
	t->repository = strdup(q->repository);
	t->headers = curl_slist_append(NULL, accept_manifest);
	if (q->digest)
		snprintf(t->digest, sizeof(t->digest), "%s", q->digest);
	t->url = str_fmt("%s/v2/%s/%s/%s", r->base, q->repository,
			 q->reference ? "manifests" : "blobs",
			 q->reference ? q->reference : q->digest);
	if (q->out_fd >= 0) {
		t->sha = EVP_MD_CTX_new();
		if (t->sha && !EVP_DigestInit_ex(t->sha, EVP_sha256(), NULL))
			fd_close(&t->out_fd);
	}
	if (!t->easy || !t->repository || !t->headers || !t->url || (q->out_fd >= 0 && !t->sha) ||
	    (q->out_fd >= 0 && fd_set_nonblock(t->out_fd, true) < 0)) {
		transfer_free(t);
		return err_set(err, -ENOMEM, "cannot set up the request");
	}
	*ret = t;
	return 0;
}

int registry_start(struct registry *r, const struct registry_request *q, struct err *err)
{
	struct transfer *t = NULL;
	int e;

	if (r->n >= REGISTRY_MAX_REQUESTS) {
		int fd = q->out_fd;
		fd_close(&fd);
		return err_set(err, -EBUSY, "too many requests at once");
	}
	e = transfer_new(r, q, &t, err);
	if (e < 0)
		return e;
	e = submit(t, t->url, err);
	if (e < 0) {
		transfer_free(t);
		return e;
	}
	t->next = r->list;
	r->list = t;
	r->n++;
	return 0;
}

/* ---- the token flow ---- */

static int ask_for_token(struct transfer *t, struct err *err)
{
	struct auth_challenge *c = &t->challenge;
	struct registry *r = t->reg;
	cleanup_free char *scope = NULL, *service = NULL, *url = NULL, *text = NULL;

	if (!str_starts(c->realm, "https://") && !(r->loopback && str_starts(c->realm, "http://")))
		return err_set(err, -EPROTO,
			       "the registry's token service has a bad address: %.200s", c->realm);
	text = str_empty(c->scope) ? str_fmt("repository:%s:pull", t->repository)
				   : strdup(c->scope);
	if (text)
		scope = curl_easy_escape(t->easy, text, 0);
	service = curl_easy_escape(t->easy, c->service, 0);
	if (!scope || !service)
		return err_set(err, -ENOMEM, "no memory");
	url = str_fmt("%s%cservice=%s&scope=%s", c->realm, strchr(c->realm, '?') ? '&' : '?',
		      service, scope);
	if (!url)
		return err_set(err, -ENOMEM, "no memory");
	t->token_step = true;
	return submit(t, url, err);
}

/* {"token": ".."} or {"access_token": ".."} */
static int take_token(struct transfer *t, struct err *err)
{
	struct registry *r = t->reg;
	json_t *j = json_loadb((const char *)buf_data(&t->body), buf_len(&t->body), 0, NULL);
	const char *token = json_string_value(json_object_get(j, "token"));
	char *copy = NULL, *repository;

	if (!token)
		token = json_string_value(json_object_get(j, "access_token"));
	if (token)
		copy = strdup(token);
	json_decref(j);
	if (!copy)
		return err_set(err, -EPROTO, "the registry's token service gave no token");
	repository = strdup(t->repository);
	if (!repository) {
		free(copy);
		return err_set(err, -ENOMEM, "no memory");
	}
	free(r->token);
	free(r->token_repository);
	r->token = copy;
	r->token_repository = repository;
	t->token_step = false;
	return submit(t, t->url, err);
}

/* ---- what came back ---- */

/* {"errors": [{"code": "..", "message": ".."}]}: only printable ASCII of it. */
static void error_detail(struct transfer *t, char *out, size_t n)
{
	json_t *j = json_loadb((const char *)buf_data(&t->body), buf_len(&t->body), 0, NULL);
	json_t *first = json_array_get(json_object_get(j, "errors"), 0);
	const char *m = json_string_value(json_object_get(first, "message"));
	size_t k = 0;

	if (m && *m) {
		k = (size_t)snprintf(out, n, ": %.200s", m);
		for (char *c = out; *c; c++)
			if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
				*c = '?';
	}
	out[MIN_OF(k, n - 1)] = 0;
	json_decref(j);
}

static int status_error(struct transfer *t, struct err *err)
{
	const char *who = t->token_step ? "the registry's token service" : "the registry";
	const char *what = t->token_step ? "token" : t->manifest ? "image" : "blob";
	char detail[256];

	error_detail(t, detail, sizeof(detail));
	switch (t->status) {
	case 401:
	case 403:
		return err_set(err, -EACCES, "%s refuses access (%s%ld)%s", who,
			       t->authorized ? "credentials do not help, " : "no credentials, ",
			       t->status, detail);
	case 404:
		return err_set(err, -ENOENT, "%s has no such %s (404)%s", who, what, detail);
	case 429:
		return err_set(err, -EBUSY, "%s has had too many requests from here (429)%s", who,
			       detail);
	default:
		return err_set(err, t->status >= 500 ? -EREMOTEIO : -EPROTO, "%s answered %ld%s",
			       who, t->status, detail);
	}
}

static int curl_error(struct transfer *t, CURLcode c, struct err *err)
{
	const char *host = t->reg->host;
	long os = 0;

	if (t->err.code) {
		*err = t->err;
		return t->err.code;
	}
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os);
	switch (c) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return err_set(err, -EHOSTUNREACH, "unknown host: %s", host);
	case CURLE_COULDNT_CONNECT:
		return err_set(err, os == ETIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED,
			       "cannot connect to %s: %s", host,
			       os ? strerror((int)os) : curl_easy_strerror(c));
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(err, -ETIMEDOUT, "%s is too slow or does not answer", host);
	case CURLE_UNSUPPORTED_PROTOCOL:
		return err_set(err, -EPROTO, "%s redirects to something that is not allowed", host);
	case CURLE_TOO_MANY_REDIRECTS:
		return err_set(err, -EPROTO, "%s redirects more than %d times", host,
			       REGISTRY_MAX_REDIRECTS);
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_HTTP2_STREAM:
		return err_set(err, -EREMOTEIO, "%s broke the connection (after %llu bytes)", host,
			       (unsigned long long)t->fetched);
	case CURLE_OUT_OF_MEMORY:
		return err_set(err, -ENOMEM, "no memory");
	default:
		return err_set(err, -EREMOTEIO, "%s: %s", host, curl_easy_strerror(c));
	}
}

static int layer_complete(struct transfer *t, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	uint8_t sha[32];

	if (t->fetched != t->size)
		return err_set(err, -EBADMSG, "blob %s is truncated: %llu of %llu bytes", t->digest,
			       (unsigned long long)t->fetched, (unsigned long long)t->size);
	if (!EVP_DigestFinal_ex(t->sha, sha, NULL))
		return err_set(err, -ENOMEM, "sha256 failed");
	digest_from_sha256(sha, digest);
	if (!str_eq(digest, t->digest))
		return err_set(err, -EBADMSG, "blob %s has the wrong digest: it is %s", t->digest,
			       digest);
	return 0;
}

/* 1: the transfer goes on with another step; 0: finished well; < 0. */
static int step_done(struct transfer *t, CURLcode c, struct err *err)
{
	const char *type = NULL;
	int r;

	if (c != CURLE_OK)
		return curl_error(t, c, err);
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->status);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
	snprintf(t->media_type, sizeof(t->media_type), "%s", type ? type : "");
	if (t->status == 200 && t->token_step) {
		r = take_token(t, err);
		return r < 0 ? r : 1;
	}
	if (t->status == 200)
		return 0;
	if (t->status == 401 && !t->token_step && !t->authorized &&
	    (t->challenge.scheme == AUTH_BEARER ||
	     (t->challenge.scheme == AUTH_BASIC && t->reg->user))) {
		r = t->challenge.scheme == AUTH_BEARER ? ask_for_token(t, err)
						       : submit(t, t->url, err);
		return r < 0 ? r : 1;
	}
	return status_error(t, err);
}

static void on_curl_done(struct registry *r, CURLMsg *m)
{
	CURLcode c = m->data.result;
	struct transfer *t = NULL;
	struct err err = { 0 };
	int e;

	curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
	curl_multi_remove_handle(r->multi, t->easy);
	e = step_done(t, c, &err);
	if (e == 1)
		return;
	if (e == 0 && is_layer(t)) {
		e = layer_complete(t, &err);
		if (e >= 0 && buf_len(&t->stash)) {
			t->draining = true;
			return;
		}
	}
	finish(t, e, &err);
}

/* ---- work ---- */

/* Pipes that were full: the rest goes first, then the transfer may go on. */
static void resume_paused(struct registry *r)
{
	struct transfer *next;

	for (struct transfer *t = r->list; t; t = next) {
		int e;

		next = t->next;
		if (!is_layer(t) || (!t->paused && !buf_len(&t->stash)))
			continue;
		e = write_stash(t);
		if (e < 0 || (e == 0 && t->draining)) {
			finish(t, e, &t->err);
		} else if (e == 0 && t->paused) {
			t->paused = false;
			curl_easy_pause(t->easy, CURLPAUSE_CONT);
		}
	}
}

static int wait_for_work(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
			 struct err *err)
{
	struct curl_waitfd w[REGISTRY_MAX_REQUESTS + 1] = { { .fd = extra_fd,
							      .events = CURL_WAIT_POLLIN } };
	unsigned n = 1;

	for (struct transfer *t = r->list; t && n <= REGISTRY_MAX_REQUESTS; t = t->next)
		if (is_layer(t) && buf_len(&t->stash))
			w[n++] = (struct curl_waitfd){ .fd = t->out_fd,
						       .events = CURL_WAIT_POLLOUT };
	if (curl_multi_poll(r->multi, w, n, timeout_ms, NULL) != CURLM_OK)
		return err_set(err, -EIO, "waiting for the network failed");
	*ret_extra = w[0].revents != 0;
	return 0;
}

int registry_poll(struct registry *r, int extra_fd, bool *ret_extra, int timeout_ms,
		  struct err *err)
{
	CURLMsg *m;
	int running, left, e = wait_for_work(r, extra_fd, ret_extra, timeout_ms, err);

	if (e < 0)
		return e;
	resume_paused(r);
	if (curl_multi_perform(r->multi, &running) != CURLM_OK)
		return err_set(err, -EIO, "the transfer machine failed");
	while ((m = curl_multi_info_read(r->multi, &left)))
		if (m->msg == CURLMSG_DONE)
			on_curl_done(r, m);
	return 0;
}

static char *copy_or_null(const char *s, bool *ok)
{
	char *c = s ? strdup(s) : NULL;

	*ok = *ok && (!s || c);
	return c;
}

int registry_new(const struct registry_options *o, registry_done_fn done,
		 registry_progress_fn progress, void *arg, struct registry **ret, struct err *err)
{
	struct registry *r;
	bool ok = true;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, -ENOMEM, "libcurl does not start");
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(err, -ENOMEM, "no memory");
	r->host = copy_or_null(o->host, &ok);
	r->loopback = host_is_loopback(o->host);
	r->base = str_fmt("%s://%s", r->loopback ? "http" : "https",
			  str_eq(o->host, "docker.io") ? "registry-1.docker.io" : o->host);
	r->user = copy_or_null(o->user, &ok);
	r->password = copy_or_null(o->user && !o->password ? "" : o->password, &ok);
	r->token = copy_or_null(o->token, &ok);
	r->fixed_token = o->token != NULL;
	r->done = done;
	r->progress = progress;
	r->arg = arg;
	r->multi = curl_multi_init();
	if (!ok || !r->base || !r->multi) {
		registry_free(r);
		return err_set(err, -ENOMEM, "no memory");
	}
	*ret = r;
	return 0;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	while (r->list) {
		struct transfer *t = r->list;

		r->list = t->next;
		transfer_free(t);
	}
	if (r->multi)
		curl_multi_cleanup(r->multi);
	free(r->host);
	free(r->base);
	free(r->user);
	free(r->password);
	free(r->token);
	free(r->token_repository);
	free(r);
}
