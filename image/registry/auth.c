#include "image/registry/auth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

struct scan {
	const char *p, *end;
};

static void skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == ','))
		s->p++;
}

static bool token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token(struct scan *s, const char **ret)
{
	const char *start = s->p;

	while (s->p < s->end && token_char(*s->p))
		s->p++;
	*ret = start;
	return (size_t)(s->p - start);
}

/* A token or a quoted string (RFC 9110, 5.6). */
static int value(struct scan *s, char out[AUTH_MAX_VALUE + 1])
{
	size_t n = 0;

	if (s->p < s->end && *s->p == '"') {
		for (s->p++; s->p < s->end && *s->p != '"'; s->p++) {
			if (*s->p == '\\' && s->p + 1 < s->end)
				s->p++;
			if (n == AUTH_MAX_VALUE || (unsigned char)*s->p < 0x20)
				return -EPROTO;
			out[n++] = *s->p;
		}
		if (s->p == s->end)
			return -EPROTO;
		s->p++;
	} else {
		const char *t;
		size_t len = token(s, &t);

		if (!len || len > AUTH_MAX_VALUE)
			return -EPROTO;
		memcpy(out, t, len);
		n = len;
	}
	out[n] = 0;
	return 0;
}

static bool is(const char *t, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(t, word, len);
}

static int parse_bearer(struct scan *s, struct auth_challenge *c)
{
	while (skip_space(s), s->p < s->end) {
		char other[AUTH_MAX_VALUE + 1], *to = other;
		const char *key;
		size_t len = token(s, &key);
		int r;

		if (!len || s->p == s->end || *s->p != '=')
			return -EPROTO;
		s->p++;
		if (is(key, len, "realm"))
			to = c->realm;
		else if (is(key, len, "service"))
			to = c->service;
		else if (is(key, len, "scope"))
			to = c->scope;
		r = value(s, to);
		if (r < 0)
			return r;
	}
	return str_empty(c->realm) ? -EPROTO : 0;
}

int auth_challenge_parse(const char *text, size_t len, struct auth_challenge *c)
{
	struct auth_challenge out = { 0 };
	struct scan s = { text, text + len };
	const char *scheme;
	size_t n;
	int r;

	skip_space(&s);
	n = token(&s, &scheme);
	if (is(scheme, n, "Bearer")) {
		out.scheme = AUTH_BEARER;
		r = parse_bearer(&s, &out);
		if (r < 0)
			return r;
	} else if (is(scheme, n, "Basic")) {
		out.scheme = AUTH_BASIC;
	}
	if (out.scheme > c->scheme)
		*c = out;
	return 0;
}

enum address_kind address_kind(const char *ip)
{
	struct in6_addr v6;
	struct in_addr v4;
	uint32_t a = 0;

	if (inet_pton(AF_INET, ip, &v4) == 1) {
		a = ntohl(v4.s_addr);
	} else if (inet_pton(AF_INET6, ip, &v6) != 1) {
		return ADDRESS_LINK; /* not an address: nothing to trust */
	} else if (IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6)) {
		return ADDRESS_LOOPBACK;
	} else if (IN6_IS_ADDR_V4MAPPED(&v6) || IN6_IS_ADDR_V4COMPAT(&v6)) {
		memcpy(&v4, v6.s6_addr + 12, 4);
		a = ntohl(v4.s_addr);
	} else {
		return IN6_IS_ADDR_LINKLOCAL(&v6) ? ADDRESS_LINK : ADDRESS_ELSEWHERE;
	}
	if (a >> 24 == 127 || a >> 24 == 0)
		return ADDRESS_LOOPBACK;
	return a >> 16 == 0xa9fe ? ADDRESS_LINK : ADDRESS_ELSEWHERE;
}

bool host_is_loopback(const char *host)
{
	char name[256];
	const char *start = host, *colon;
	size_t len = strlen(host);
	struct in6_addr v6;
	struct in_addr v4;

	if (*host == '[') {
		start++;
		len = strcspn(start, "]");
	} else if ((colon = strchr(host, ':'))) {
		len = (size_t)(colon - host);
	}
	if (!len || len >= sizeof(name))
		return false;
	memcpy(name, start, len);
	name[len] = 0;
	if (!strcasecmp(name, "localhost") ||
	    (len > 10 && !strcasecmp(name + len - 10, ".localhost")))
		return true;
	if (inet_pton(AF_INET, name, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
