/* One HTTP exchange: how libcurl is set up, redirects (by our rules, not libcurl's), the answer. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <jansson.h>

#include "base/util.h"
#include "image/address.h"
#include "image/proxy.h"
#include "image/registry/internal.h"

/* The system's certificates as a directory: those that hosts.toml names replace libcurl's default,
 * which is a file, but not this. */
#define SYSTEM_CA_PATH "/etc/ssl/certs"

/* ---- URLs ---- */

static char *url_part(CURLU *u, CURLUPart part, unsigned flags)
{
	char *s = NULL, *copy;

	if (curl_url_get(u, part, &s, flags) != CURLUE_OK)
		return NULL;
	copy = strdup(s);
	curl_free(s);
	return copy;
}

int url_split(const char *url, char **ret_origin, char **ret_host, unsigned *ret_port,
	      struct err *err)
{
	cleanup_free char *scheme = NULL, *host = NULL, *port = NULL, *origin = NULL;
	CURLU *u = curl_url();
	uint64_t n;
	size_t len;

	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK) {
		scheme = url_part(u, CURLUPART_SCHEME, 0);
		host = url_part(u, CURLUPART_HOST, 0);
		port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	}
	curl_url_cleanup(u);
	if (!scheme || !host || !*host || !port || str_to_u64(port, 1, 65535, &n) < 0)
		return err_set(err, -EPROTO, "bad address %.200s", url);
	for (char *c = host; *c; c++)
		*c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
	origin = str_fmt("%s://%s:%s", scheme, host, port);
	if (!origin)
		return err_nomem(err);
	len = strlen(host);
	if (*host == '[' && host[len - 1] == ']') {
		memmove(host, host + 1, len - 2);
		host[len - 2] = 0;
	}
	*ret_origin = take_ptr(&origin);
	*ret_host = take_ptr(&host);
	*ret_port = (unsigned)n;
	return 0;
}

/* ---- the answer's bytes ---- */

static size_t exchange_on_data(char *data, size_t one, size_t len, void *arg)
{
	struct exchange *x = arg;
	bool good;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
	good = x->status == 200 || x->status == 206;
	if (good && x->data) {
		size_t n = x->data(x, data, len);

		x->paused = n == CURL_WRITEFUNC_PAUSE;
		return n;
	}
	/* The body of an error may say why; a part of it is enough. */
	if (x->status >= 300 && buf_len(&x->body) + len > REGISTRY_MAX_TOKEN)
		return len;
	if (buf_len(&x->body) + len > x->max) {
		err_set(&x->err, -EFBIG, "answer of more than %llu bytes",
			(unsigned long long)x->max);
		return 0;
	}
	if (buf_put(&x->body, data, len) < 0) {
		err_nomem(&x->err);
		return 0;
	}
	return len;
}

/* The value of header `name`, without white space around it; false when it is another one. */
static bool header_is(const char *line, size_t n, const char *name, const char **ret, size_t *ret_n)
{
	size_t len = strlen(name);

	if (n <= len || strncasecmp(line, name, len) || line[len] != ':')
		return false;
	line += len + 1;
	n -= len + 1;
	while (n && (*line == ' ' || *line == '\t')) {
		line++;
		n--;
	}
	while (n && strchr("\r\n \t", line[n - 1]))
		n--;
	*ret = line;
	*ret_n = n;
	return true;
}

static void keep_header(const struct exchange *x, const char *v, size_t n, char *out, size_t max)
{
	snprintf(out, max, "%.*s", (int)(n < max ? n : 0), v);
}

static size_t exchange_on_header(char *data, size_t one, size_t len, void *arg)
{
	struct exchange *x = arg;
	const char *v;
	size_t n;

	x->header_bytes += len;
	if (x->header_bytes > REGISTRY_MAX_HEADERS) {
		err_set(&x->err, -EFBIG, "answer with more than %zu bytes of headers",
			REGISTRY_MAX_HEADERS);
		return 0;
	}
	if (len >= 5 && !strncasecmp(data, "HTTP/", 5)) { /* after a "100 Continue", say */
		memset(&x->challenge, 0, sizeof(x->challenge));
		*x->location = *x->range = *x->digest = *x->content_range = 0;
	} else if (header_is(data, len, "WWW-Authenticate", &v, &n)) {
		/* A challenge that cannot be parsed counts as none: the 401 is the error then. */
		(void)!auth_challenge_parse(v, n, &x->challenge);
	} else if (header_is(data, len, "Location", &v, &n)) {
		keep_header(x, v, n, x->location, sizeof(x->location));
	} else if (header_is(data, len, "Range", &v, &n)) {
		keep_header(x, v, n, x->range, sizeof(x->range));
	} else if (header_is(data, len, "Content-Range", &v, &n)) {
		keep_header(x, v, n, x->content_range, sizeof(x->content_range));
	} else if (header_is(data, len, "Docker-Content-Digest", &v, &n)) {
		keep_header(x, v, n, x->digest, sizeof(x->digest));
	}
	return len;
}

static size_t exchange_on_send(char *to, size_t one, size_t max, void *arg)
{
	struct exchange *x = arg;
	uint64_t left = x->body_len - x->body_sent;
	ssize_t n;

	if (!left)
		return 0;
	do
		n = pread(x->body_fd, to, MIN_OF((uint64_t)max, left),
			  (off_t)(x->body_at + x->body_sent));
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		err_set(&x->err, n < 0 ? -errno : -EIO, "read what is to be sent");
		return CURL_READFUNC_ABORT;
	}
	x->body_sent += (uint64_t)n;
	return (size_t)n;
}

static int exchange_on_seek(void *arg, curl_off_t at, int origin)
{
	struct exchange *x = arg;

	if (origin != SEEK_SET || at < 0 || (uint64_t)at > x->body_len)
		return CURL_SEEKFUNC_FAIL;
	x->body_sent = (uint64_t)at;
	return CURL_SEEKFUNC_OK;
}

/* The endpoint may be anywhere but at a cloud's metadata, since who named it could ask there
 * himself; where it sends us may not be more private than the place where it is. */
static bool may_go(const struct exchange *x, bool at_endpoint, enum address_kind kind)
{
	return at_endpoint ? kind != ADDRESS_METADATA : address_may_lead(x->ep->kind, kind);
}

static int wrong_place(const struct exchange *x, bool at_endpoint, const char *host,
		       enum address_kind kind, struct err *err)
{
	if (at_endpoint)
		return err_set(err, -EPROTO, "%s is at %s, %s", x->ep->label, host,
			       address_kind_text(kind));
	return err_set(err, -EPROTO,
		       "%s sends us to %s, %s: a registry may not lead to a place more private "
		       "than its own (%s)",
		       x->ep->label, host, address_kind_text(kind), address_kind_text(x->ep->kind));
}

/* Called when a connection is there, new or used again, and before a request is sent on it. */
static int exchange_on_connected(void *arg, char *remote_ip, char *local_ip, int remote_port,
				 int local_port)
{
	struct exchange *x = arg;
	enum address_kind kind = address_kind(remote_ip);

	if (x->proxied) /* the proxy's address */
		return CURL_PREREQFUNC_OK;
	if (!may_go(x, x->at_endpoint, kind)) {
		wrong_place(x, x->at_endpoint, remote_ip, kind, &x->err);
		return CURL_PREREQFUNC_ABORT;
	}
	/* Of several addresses the most public one counts: a name can be given any private one. */
	if (x->at_endpoint) {
		x->ep->kind = x->ep->connected ? MIN_OF(x->ep->kind, kind) : kind;
		x->ep->connected = true;
	}
	return CURL_PREREQFUNC_OK;
}

/* ---- set-up ---- */

int exchange_init(struct exchange *x, struct registry *reg, uint64_t max,
		  void (*done)(struct exchange *, int))
{
	memset(x, 0, sizeof(*x));
	x->reg = reg;
	x->max = max;
	x->done = done;
	x->body_fd = -1;
	buf_init(&x->body, MAX_OF(max, (uint64_t)REGISTRY_MAX_TOKEN));
	x->easy = curl_easy_init();
	return x->easy ? 0 : -ENOMEM;
}

void exchange_stop(struct exchange *x)
{
	if (x->running)
		curl_multi_remove_handle(x->reg->multi, x->easy);
	x->running = x->paused = false;
}

void exchange_resume(struct exchange *x)
{
	if (!x->paused)
		return;
	x->paused = false;
	curl_easy_pause(x->easy, CURLPAUSE_CONT);
}

void exchange_fini(struct exchange *x)
{
	exchange_stop(x);
	if (x->easy)
		curl_easy_cleanup(x->easy);
	x->easy = NULL;
	exchange_no_headers(x);
	curl_slist_free_all(x->sent);
	x->sent = NULL;
	buf_fini(&x->body);
	free(x->url);
	x->url = NULL;
}

static int add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *l = curl_slist_append(*list, line);

	if (!l)
		return -ENOMEM;
	*list = l;
	return 0;
}

void exchange_no_headers(struct exchange *x)
{
	curl_slist_free_all(x->headers);
	x->headers = NULL;
}

int exchange_header(struct exchange *x, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return n < 0 || n >= (int)sizeof(line) ? -EINVAL : add_header(&x->headers, line);
}

#define SET(option, value)                                                                         \
	do {                                                                                       \
		if (curl_easy_setopt(x->easy, option, value) != CURLE_OK)                          \
			return -ENOMEM;                                                            \
	} while (0)

static int set_pem(struct exchange *x, CURLoption option, const char *pem)
{
	struct curl_blob b = { (void *)pem, strlen(pem), CURL_BLOB_COPY };

	SET(option, &b);
	return 0;
}

/*
 * The endpoint's own CA is trusted, beside the system's, also where the endpoint sends us. Our
 * client certificate, skip_verify and the headers of hosts.toml are for the endpoint's host alone.
 */
static int set_trust(struct exchange *x, bool same_host, bool same_origin)
{
	const struct host *h = &x->ep->host;
	int r = 0;

	SET(CURLOPT_CAPATH, SYSTEM_CA_PATH);
	if (h->ca)
		r = set_pem(x, CURLOPT_CAINFO_BLOB, h->ca);
	if (r == 0 && same_host && h->cert) {
		r = set_pem(x, CURLOPT_SSLCERT_BLOB, h->cert);
		if (r == 0)
			r = set_pem(x, CURLOPT_SSLKEY_BLOB, h->key ? h->key : h->cert);
	}
	if (r == 0 && same_host && h->skip_verify) {
		SET(CURLOPT_SSL_VERIFYPEER, 0L);
		SET(CURLOPT_SSL_VERIFYHOST, 0L);
	}
	for (char **v = same_origin && h->headers ? h->headers : NULL; r == 0 && v && *v; v++)
		r = add_header(&x->sent, *v);
	return r;
}

static int set_proxy(struct exchange *x, const char *host, unsigned port)
{
	const struct registry *reg = x->reg;
	const char *proxy = str_starts(x->url, "https:") ? reg->https_proxy : reg->http_proxy;

	x->proxied = !str_empty(proxy) && !proxy_bypassed(reg->no_proxy, host, port);
	SET(CURLOPT_PROXY, x->proxied ? proxy : ""); /* "" = none, also not the environment's */
	SET(CURLOPT_NOPROXY, "");
	return 0;
}

static int set_body(struct exchange *x)
{
	if (x->form) {
		SET(CURLOPT_COPYPOSTFIELDS, x->form);
		return 0;
	}
	if (str_eq(x->method, "HEAD"))
		SET(CURLOPT_NOBODY, 1L);
	if (x->body_fd >= 0) {
		x->body_sent = 0;
		/*
		 * When a reused connection breaks, libcurl sends the request again by itself. Part
		 * of a body may have arrived by then, and only the caller can find out: so no
		 * reuse.
		 */
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_UPLOAD, 1L);
		SET(CURLOPT_READFUNCTION, exchange_on_send);
		SET(CURLOPT_READDATA, x);
		SET(CURLOPT_SEEKFUNCTION, exchange_on_seek);
		SET(CURLOPT_SEEKDATA, x);
		SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body_len);
		if (add_header(&x->sent, "Expect:") < 0)
			return -ENOMEM;
	} else if (x->method && !str_eq(x->method, "GET") && !str_eq(x->method, "HEAD")) {
		SET(CURLOPT_POSTFIELDS, "");
		SET(CURLOPT_POSTFIELDSIZE, 0L);
		if (add_header(&x->sent, "Content-Type:") < 0)
			return -ENOMEM;
	}
	if (x->method && !str_eq(x->method, "GET") && !str_eq(x->method, "HEAD"))
		SET(CURLOPT_CUSTOMREQUEST, x->method);
	return 0;
}

static int set_auth(struct exchange *x)
{
	const struct exchange_auth *a = &x->auth;

	if (a->bearer) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		SET(CURLOPT_XOAUTH2_BEARER, a->bearer);
	} else if (a->password) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		SET(CURLOPT_USERNAME, a->user ? a->user : "");
		SET(CURLOPT_PASSWORD, a->password);
	}
	return 0;
}

static int set_common(struct exchange *x)
{
	curl_easy_reset(x->easy);
	SET(CURLOPT_URL, x->url);
	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* or later */
	SET(CURLOPT_CONNECTTIMEOUT, (long)REGISTRY_CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, (long)REGISTRY_LOW_SPEED_BYTES);
	SET(CURLOPT_LOW_SPEED_TIME, (long)x->reg->stall_s);
	if (x->document)
		SET(CURLOPT_TIMEOUT, (long)REGISTRY_DOCUMENT_TIMEOUT_S);
	SET(CURLOPT_USERAGENT, "husk/" HUSK_VERSION);
	SET(CURLOPT_WRITEFUNCTION, exchange_on_data);
	SET(CURLOPT_WRITEDATA, x);
	SET(CURLOPT_HEADERFUNCTION, exchange_on_header);
	SET(CURLOPT_HEADERDATA, x);
	SET(CURLOPT_PREREQFUNCTION, exchange_on_connected);
	SET(CURLOPT_PREREQDATA, x);
	/* Refused after the first try, whose buffer is still there and is as large. */
	(void)curl_easy_setopt(x->easy, CURLOPT_BUFFERSIZE, 256L * 1024);
	return 0;
}
#undef SET

static int submit(struct exchange *x, struct err *err)
{
	cleanup_free char *origin = NULL, *host = NULL;
	unsigned port = 0;
	bool same_origin, elsewhere;
	enum address_kind kind;
	int r = url_split(x->url, &origin, &host, &port, err);

	if (r < 0)
		return r;
	same_origin = str_eq(origin, x->ep->origin);
	elsewhere = x->hops || x->token_service || !same_origin;
	/* Before there is a connection; behind a proxy there never is one. */
	kind = address_kind_of_host(host);
	if (!may_go(x, !elsewhere, kind))
		return wrong_place(x, !elsewhere, host, kind, err);
	x->at_endpoint = !elsewhere;
	x->cross_origin = x->cross_origin || !same_origin;
	x->header_bytes = 0;
	x->err.code = 0;
	buf_clear(&x->body);
	curl_slist_free_all(x->sent);
	x->sent = NULL;
	for (struct curl_slist *h = x->headers; r == 0 && h; h = h->next)
		r = add_header(&x->sent, h->data);
	if (r == 0)
		r = set_common(x);
	if (r == 0)
		r = set_proxy(x, host, port);
	if (r == 0)
		r = set_trust(x, str_eq(host, x->ep->name), !x->cross_origin && !x->token_service);
	if (r == 0)
		r = set_body(x);
	if (r == 0 && (!x->cross_origin || x->token_service))
		r = set_auth(x);
	if (r < 0 || curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->sent) != CURLE_OK ||
	    curl_multi_add_handle(x->reg->multi, x->easy) != CURLM_OK)
		return err_nomem(err);
	x->running = true;
	return 0;
}

int exchange_start(struct exchange *x, struct endpoint *ep, const char *url,
		   const struct exchange_auth *auth, struct err *err)
{
	char *copy = strdup(url);

	if (!copy)
		return err_nomem(err);
	if (!x->token_service && str_starts(ep->host.url, "https:") && !str_starts(url, "https:")) {
		free(copy);
		return err_set(err, -EPROTO, "%s sends us from HTTPS to %.100s", ep->label, url);
	}
	exchange_stop(x);
	free(x->url);
	x->url = copy;
	x->ep = ep;
	x->hops = 0;
	x->cross_origin = false;
	x->status = 0;
	x->auth = auth ? *auth : (struct exchange_auth){ 0 };
	return submit(x, err);
}

/* ---- the end ---- */

/* Redirects by our own rules: the headers of the request (Accept, Range) are sent again, those of
 * the endpoint are not. */
static int redirect(struct exchange *x, struct err *err)
{
	char *to = NULL, *copy;
	bool https = str_starts(x->url, "https:");

	curl_easy_getinfo(x->easy, CURLINFO_REDIRECT_URL, &to);
	if (!to || !(str_starts(to, "https://") || (!https && str_starts(to, "http://"))))
		return err_set(err, -EPROTO, "%s redirects to something that is not allowed",
			       x->ep->label);
	if (++x->hops > REGISTRY_MAX_REDIRECTS)
		return err_set(err, -EPROTO, "%s redirects more than %d times", x->ep->label,
			       REGISTRY_MAX_REDIRECTS);
	copy = strdup(to);
	if (!copy)
		return err_nomem(err);
	free(x->url);
	x->url = copy;
	return 0;
}

static int curl_failure(struct exchange *x, CURLcode c, struct err *err)
{
	const char *host = x->token_service ? "the registry's token service" : x->ep->label;
	long os = 0;

	if (x->err.code) {
		*err = x->err;
		return x->err.code;
	}
	curl_easy_getinfo(x->easy, CURLINFO_OS_ERRNO, &os);
	switch (c) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return err_set(err, -EHOSTUNREACH, "unknown host: %s", host);
	case CURLE_COULDNT_RESOLVE_PROXY:
		return err_set(err, -EHOSTUNREACH, "unknown host of the proxy for %s", host);
	case CURLE_COULDNT_CONNECT:
		return err_set(err, os == ETIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED,
			       "cannot connect to %s: %s", host,
			       os ? strerror((int)os) : curl_easy_strerror(c));
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(err, -ETIMEDOUT, "%s is too slow or does not answer", host);
	case CURLE_UNSUPPORTED_PROTOCOL:
		return err_set(err, -EPROTO, "%s redirects to something that is not allowed", host);
	case CURLE_PEER_FAILED_VERIFICATION:
		return err_set(err, -EPROTO, "the certificate of %s is not to be trusted: %s", host,
			       curl_easy_strerror(c));
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		return err_set(err, -EPROTO, "certificate or key for %s cannot be used: %s", host,
			       curl_easy_strerror(c));
	case CURLE_SSL_CONNECT_ERROR:
		return err_set(
			err, -EPROTO,
			"no TLS connection with %s: it speaks none, or no version that we accept",
			host);
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return err_set(err, -EREMOTEIO, "%s broke the connection", host);
	case CURLE_OUT_OF_MEMORY:
		return err_nomem(err);
	default:
		return err_set(err, -EREMOTEIO, "%s: %s", host, curl_easy_strerror(c));
	}
}

void exchange_on_curl(CURLMsg *m)
{
	CURLcode c = m->data.result;
	struct exchange *x = NULL;
	struct err err = { 0 };
	int r = 0;

	curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
	exchange_stop(x);
	if (c != CURLE_OK) {
		r = curl_failure(x, c, &err);
	} else {
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
		if (x->status >= 300 && x->status < 400 && x->status != 304 && !x->token_service) {
			r = redirect(x, &err);
			if (r == 0)
				r = submit(x, &err);
			if (r == 0)
				return;
		}
	}
	if (r < 0)
		x->err = err;
	x->done(x, r);
}

uint64_t exchange_retry_after(const struct exchange *x)
{
	curl_off_t s = 0;

	curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &s);
	return s > 0 ? (uint64_t)s : 0;
}

/* {"errors": [{"code": "..", "message": ".."}]}: only printable ASCII of it. */
static void error_detail(const struct exchange *x, char *out, size_t n)
{
	json_t *j = json_loadb((const char *)buf_data(&x->body), buf_len(&x->body), 0, NULL);
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

int exchange_status_error(const struct exchange *x, const char *who, const char *object,
			  bool authorized, struct err *err)
{
	char detail[256];

	error_detail(x, detail, sizeof(detail));
	switch (x->status) {
	case 401:
	case 403:
		return err_set(err, -EACCES, "%s refuses access (%s%ld)%s", who,
			       authorized ? "credentials do not help, " : "no credentials, ",
			       x->status, detail);
	case 404:
		return err_set(err, -ENOENT, "%s has no such %s (404)%s", who, object, detail);
	case 429:
		return err_set(err, -EBUSY,
			       "%s says that it got too many requests from here (429)%s", who,
			       detail);
	default:
		return err_set(err, x->status >= 500 ? -EREMOTEIO : -EPROTO, "%s answered %ld%s",
			       who, x->status, detail);
	}
}
