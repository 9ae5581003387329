#include "image/reference.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

static bool lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alnum(char c)
{
	return lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* [a-z0-9]+ joined by ".", "_", "__" or any number of "-"; components joined by "/". */
static bool path_ok(const char *p)
{
	for (;;) {
		size_t sep;

		if (!lower_alnum(*p))
			return false;
		while (lower_alnum(*p))
			p++;
		if (!*p)
			return true;
		if (*p == '/' || *p == '.')
			sep = 1;
		else if (*p == '_')
			sep = p[1] == '_' ? 2 : 1;
		else
			sep = strspn(p, "-");
		if (!sep)
			return false;
		p += sep;
	}
}

static bool tag_ok(const char *t)
{
	size_t n = strlen(t);

	if (!n || n > REFERENCE_MAX_TAG || *t == '.' || *t == '-')
		return false;
	for (; *t; t++)
		if (!alnum(*t) && *t != '_' && *t != '.' && *t != '-')
			return false;
	return true;
}

static bool port_ok(const char *p)
{
	uint64_t v;

	return strlen(p) <= 5 && isdigit((unsigned char)*p) && str_to_u64(p, 1, 65535, &v) == 0;
}

/* Labels of letters, digits and inner "-", joined by "."; or an IPv6 address in brackets; a port.
 */
static bool host_ok(const char *host)
{
	char name[REFERENCE_MAX_NAME + 1];
	struct in6_addr v6;
	char *colon, *p;

	snprintf(name, sizeof(name), "%s", host);
	if (*name == '[') {
		p = strchr(name, ']');
		if (!p || (p[1] && (p[1] != ':' || !port_ok(p + 2))))
			return false;
		*p = 0;
		return inet_pton(AF_INET6, name + 1, &v6) == 1;
	}
	colon = strchr(name, ':');
	if (colon) {
		if (!port_ok(colon + 1))
			return false;
		*colon = 0;
	}
	for (p = name;; p++) {
		size_t n = strcspn(p, ".");

		if (!n || n > 63 || p[0] == '-' || p[n - 1] == '-')
			return false;
		for (size_t k = 0; k < n; k++)
			if (!alnum(p[k]) && p[k] != '-')
				return false;
		p += n;
		if (!*p)
			return true;
	}
}

/* The first component is a host when it cannot be a component of a path on docker.io. */
static bool looks_like_host(const char *s, size_t len)
{
	if (len == 9 && !memcmp(s, "localhost", 9))
		return true;
	for (size_t k = 0; k < len; k++)
		if (s[k] == '.' || s[k] == ':' || s[k] == '[' || (s[k] >= 'A' && s[k] <= 'Z'))
			return true;
	return false;
}

static int split_name(const char *name, struct reference *r, struct err *err)
{
	const char *slash = strchr(name, '/');
	size_t host = slash ? (size_t)(slash - name) : 0;

	if (host && looks_like_host(name, host)) {
		memcpy(r->host, name, host);
		r->host[host] = 0;
		if (!strcasecmp(r->host, "index.docker.io"))
			snprintf(r->host, sizeof(r->host), "docker.io");
		if (!host_ok(r->host))
			return err_set(err, -EINVAL, "bad registry host \"%.100s\"", r->host);
		name = slash + 1;
	} else {
		snprintf(r->host, sizeof(r->host), "docker.io");
	}
	if (!path_ok(name))
		return err_set(err, -EINVAL,
			       "bad image name \"%.100s\" (lower case letters, digits, and . _ - "
			       "between them)",
			       name);
	if (snprintf(r->path, sizeof(r->path), "%s%s",
		     str_eq(r->host, "docker.io") && !strchr(name, '/') ? "library/" : "",
		     name) >= (int)sizeof(r->path) ||
	    strlen(r->host) + 1 + strlen(r->path) > REFERENCE_MAX_NAME)
		return err_set(err, -EINVAL, "image name of more than %u bytes",
			       REFERENCE_MAX_NAME);
	return 0;
}

int reference_parse(const char *s, struct reference *ret, struct err *err)
{
	char name[REFERENCE_MAX + 1];
	struct reference r = { 0 };
	char *at, *colon, *slash;
	int e;

	if (str_empty(s))
		return err_set(err, -EINVAL, "empty image name");
	if (strnlen(s, REFERENCE_MAX + 1) > REFERENCE_MAX)
		return err_set(err, -EINVAL, "image name of more than %u bytes", REFERENCE_MAX);
	snprintf(name, sizeof(name), "%s", s);
	at = strchr(name, '@');
	if (at) {
		*at++ = 0;
		if (!digest_valid(at))
			return err_set(err, -EINVAL,
				       "bad digest \"%.100s\" (sha256:<64 hex digits>)", at);
		memcpy(r.digest, at, DIGEST_LEN + 1);
	}
	slash = strrchr(name, '/');
	colon = strrchr(slash ? slash : name, ':');
	if (colon) {
		*colon++ = 0;
		if (!tag_ok(colon))
			return err_set(err, -EINVAL, "bad tag \"%.150s\"", colon);
		snprintf(r.tag, sizeof(r.tag), "%s", colon);
	} else if (!at) {
		snprintf(r.tag, sizeof(r.tag), "latest");
	}
	if (strlen(name) > REFERENCE_MAX_NAME)
		return err_set(err, -EINVAL, "image name of more than %u bytes",
			       REFERENCE_MAX_NAME);
	e = split_name(name, &r, err);
	if (e < 0)
		return e;
	*ret = r;
	return 0;
}

void reference_name(const struct reference *r, char out[REFERENCE_MAX + 1])
{
	snprintf(out, REFERENCE_MAX + 1, "%s/%s", r->host, r->path);
}

void reference_with_tag(const struct reference *r, char out[REFERENCE_MAX + 1])
{
	snprintf(out, REFERENCE_MAX + 1, "%s/%s:%s", r->host, r->path, r->tag);
}

void reference_with_digest(const struct reference *r, const char *digest,
			   char out[REFERENCE_MAX + 1])
{
	snprintf(out, REFERENCE_MAX + 1, "%s/%s@%.71s", r->host, r->path, digest);
}

void reference_canonical(const struct reference *r, char out[REFERENCE_MAX + 1])
{
	if (*r->digest)
		reference_with_digest(r, r->digest, out);
	else
		reference_with_tag(r, out);
}

int reference_normalize(const char *s, char **ret, struct err *err)
{
	char name[REFERENCE_MAX + 1];
	struct reference parsed;
	int r = reference_parse(s, &parsed, err);

	if (r < 0)
		return r;
	reference_canonical(&parsed, name);
	*ret = strdup(name);
	return *ret ? 0 : err_nomem(err);
}
