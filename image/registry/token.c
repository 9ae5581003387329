/*
 * Bearer tokens: one is asked for once for each (realm, service, scopes), serves all requests that
 * it fits, and is replaced when it expires or is refused. "Docker token authentication", and
 * OAuth2's refresh_token grant for identity tokens, with GET for services that do not know POST.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/util.h"
#include "image/failure.h"
#include "image/registry/internal.h"
#include "image/registry/retry.h"

#define MAX_SCOPES 16
#define CLIENT_ID "husk"

struct token {
	struct exchange x; /* the first member: a callback's exchange is its token */
	struct token *next;
	uint64_t id; /* never used again; requests that wait for the token know it by this */
	struct endpoint *ep;
	char *realm, *service, *scopes; /* scopes: joined by spaces, in the order of asking */
	char *value;			/* NULL: still being asked for */
	char *form;
	bool login, oauth;
	uint64_t expires_ns;
};

static void wipe(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

static void token_free(struct token *t)
{
	exchange_fini(&t->x);
	free(t->realm);
	free(t->service);
	free(t->scopes);
	wipe(&t->value);
	wipe(&t->form);
	free(t);
}

static void token_drop(struct registry *reg, struct token *t)
{
	struct token **at = &reg->tokens.list;

	for (; *at != t; at = &(*at)->next)
		check(*at);
	*at = t->next;
	reg->tokens.n--;
	token_free(t);
}

void tokens_fini(struct registry *reg)
{
	while (reg->tokens.list)
		token_drop(reg, reg->tokens.list);
}

void token_forget(struct registry *reg, const char *value)
{
	for (struct token *t = reg->tokens.list; t; t = t->next) {
		if (t->value && str_eq(t->value, value)) {
			token_drop(reg, t);
			return;
		}
	}
}

/* ---- asking ---- */

/* Is each of the words of `part` one of `all`? */
static bool covers(const char *all, const char *part)
{
	for (const char *p = part; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");
		const char *a = all;
		bool found = false;

		for (; *a && !found; a += strspn(a, " ")) {
			size_t m = strcspn(a, " ");

			found = m == n && !memcmp(a, p, n);
			a += m;
		}
		if (!found)
			return false;
		p += n;
	}
	return true;
}

/* "&scope=a&scope=b" for a URL, or "a b" escaped for a form. */
static char *scope_query(struct token *t)
{
	cleanup_buf struct buf b;
	unsigned n = 0;

	buf_init(&b, 64 * KIB);
	for (const char *p = t->scopes; *p && n < MAX_SCOPES; p += strspn(p, " "), n++) {
		size_t len = strcspn(p, " ");
		char *e = curl_easy_escape(t->x.easy, p, (int)len);
		int r = e ? buf_printf(&b, "&scope=%s", e) : -ENOMEM;

		curl_free(e);
		if (r < 0)
			return NULL;
		p += len;
	}
	return buf_len(&b) ? buf_take_str(&b) : strdup("");
}

static char *escape(struct token *t, const char *s)
{
	char *e = curl_easy_escape(t->x.easy, s, 0), *copy = e ? strdup(e) : NULL;

	curl_free(e);
	return copy;
}

/* {realm}?service=..&scope=..&scope=.. */
static int ask_by_get(struct registry *reg, struct token *t, struct err *err)
{
	cleanup_free char *service = escape(t, t->service), *scope = scope_query(t), *url = NULL;
	struct exchange_auth a = { 0 };

	if (service && scope)
		url = str_fmt("%s%cservice=%s%s", t->realm, strchr(t->realm, '?') ? '&' : '?',
			      service, scope);
	if (!url)
		return err_nomem(err);
	if (t->login) {
		a.user = reg->user;
		a.password = reg->identity_token ? reg->identity_token : reg->password;
	}
	t->oauth = false;
	t->x.form = NULL;
	return exchange_start(&t->x, t->ep, url, &a, err);
}

/* OAuth2: grant_type=refresh_token in a form. */
static int ask_by_post(struct registry *reg, struct token *t, struct err *err)
{
	cleanup_free char *service = escape(t, t->service), *scope = escape(t, t->scopes),
			  *secret = escape(t, reg->identity_token);

	if (service && scope && secret)
		t->form = str_fmt("grant_type=refresh_token&client_id=" CLIENT_ID
				  "&service=%s&scope=%s&refresh_token=%s",
				  service, scope, secret);
	if (secret)
		explicit_bzero(secret, strlen(secret));
	if (!t->form)
		return err_nomem(err);
	t->oauth = true;
	t->x.form = t->form;
	return exchange_start(&t->x, t->ep, t->realm, NULL, err);
}

static int take_token(struct token *t, struct err *err)
{
	uint64_t s = 0;
	int r = auth_token_parse(buf_data(&t->x.body), buf_len(&t->x.body), &t->value, &s);

	if (r == -ENOMEM)
		return err_nomem(err);
	if (r < 0)
		return err_set(err, r, "the registry's token service gave no token");
	t->expires_ns = now_mono_ns() + s * NS_PER_S;
	return 0;
}

/* Services that do not know POST say so in several ways. */
static bool no_post(long status)
{
	return status == 400 || status == 401 || status == 404 || status == 405;
}

static void token_on_answer(struct exchange *x, int code)
{
	struct token *t = (struct token *)x;
	struct registry *reg = x->reg;
	struct err err = { 0 };
	bool temporary;
	uint64_t id = t->id, after_s;
	int r = code;

	if (code >= 0 && t->oauth && no_post(x->status)) {
		r = ask_by_get(reg, t, &err);
		if (r == 0)
			return;
	} else if (code < 0) {
		err = x->err;
	} else if (x->status == 200) {
		r = take_token(t, &err);
	} else {
		r = exchange_status_error(x, "the registry's token service", "token",
					  t->login && reg->password, &err);
	}
	temporary = code < 0 ? failure_unavailable(code) : retry_status(x->status);
	after_s = r < 0 ? exchange_retry_after(x) : 0;
	wipe(&t->form);
	if (r < 0)
		token_drop(reg, t);
	reg->tokens.ready(reg, id, r, temporary, after_s, &err);
}

/* Plain http only where the registry itself is spoken to by it, or is on this machine. */
static bool realm_ok(const struct endpoint *ep, const char *realm)
{
	if (str_starts(realm, "https://"))
		return true;
	return str_starts(realm, "http://") &&
	       (ep->loopback || str_starts(ep->host.url, "http://"));
}

static int token_new(struct registry *reg, struct endpoint *ep, const char *scopes, uint64_t *ret,
		     struct err *err)
{
	struct token *t = calloc(1, sizeof(*t));
	int r;

	if (!t || exchange_init(&t->x, reg, REGISTRY_MAX_TOKEN, token_on_answer) < 0) {
		free(t);
		return err_nomem(err);
	}
	t->x.token_service = t->x.document = true;
	t->ep = ep;
	t->login = ep->host.login;
	t->realm = strdup(ep->challenge.realm);
	t->service = strdup(ep->challenge.service);
	t->scopes = strdup(scopes);
	if (!t->realm || !t->service || !t->scopes)
		r = err_nomem(err);
	else if (ep->host.login && reg->identity_token)
		r = ask_by_post(reg, t, err);
	else
		r = ask_by_get(reg, t, err);
	if (r < 0) {
		token_free(t);
		return r;
	}
	t->id = ++reg->tokens.serial;
	t->next = reg->tokens.list;
	reg->tokens.list = t;
	reg->tokens.n++;
	*ret = t->id;
	return 0;
}

/* Drops the oldest one that no request waits for. */
static void make_room(struct registry *reg)
{
	struct token *oldest = NULL;

	if (reg->tokens.n < REGISTRY_MAX_TOKENS)
		return;
	for (struct token *t = reg->tokens.list; t; t = t->next)
		if (t->value)
			oldest = t;
	if (oldest)
		token_drop(reg, oldest);
}

int token_get(struct registry *reg, struct endpoint *ep, const char *scopes, const char **ret,
	      uint64_t *ret_id, struct err *err)
{
	const struct auth_challenge *c = &ep->challenge;
	struct token *next;

	for (struct token *t = reg->tokens.list; t; t = next) {
		next = t->next;
		if (t->login != ep->host.login || !str_eq(t->realm, c->realm) ||
		    !str_eq(t->service, c->service) || !covers(t->scopes, scopes))
			continue;
		if (!t->value) {
			*ret_id = t->id;
			return 0;
		}
		if (now_mono_ns() < t->expires_ns) {
			*ret = t->value;
			return 1;
		}
		token_drop(reg, t);
	}
	if (!realm_ok(ep, c->realm))
		return err_set(err, -EPROTO,
			       "the registry's token service has a bad address: %.200s", c->realm);
	make_room(reg);
	return token_new(reg, ep, scopes, ret_id, err);
}
