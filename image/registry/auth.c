#include "image/registry/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "base/util.h"

#define LIFE_DEFAULT_S 60 /* of the specification, when the answer does not say */
#define LIFE_SPARE_S 10

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

/* Printable ASCII: it becomes a part of a header. */
static bool is_token(const char *s)
{
	const char *c = s;

	while (*c > 0x20 && *c < 0x7f)
		c++;
	return c > s && !*c;
}

int auth_token_parse(const void *data, size_t len, char **ret, uint64_t *ret_s)
{
	json_t *j = json_loadb(data, len, 0, NULL);
	const char *text = json_string_value(json_object_get(j, "token"));
	json_int_t s = json_integer_value(json_object_get(j, "expires_in"));
	int r = -EPROTO;

	if (str_empty(text))
		text = json_string_value(json_object_get(j, "access_token"));
	if (text && is_token(text)) {
		*ret = strdup(text);
		r = *ret ? 0 : -ENOMEM;
	}
	json_decref(j);
	if (r < 0)
		return r;
	s = s <= 0 ? LIFE_DEFAULT_S : MIN_OF(s, (json_int_t)AUTH_MAX_LIFE_S);
	*ret_s = (uint64_t)(s - MIN_OF((json_int_t)LIFE_SPARE_S, s / 2));
	return 0;
}
