#include "image/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/evp.h>

#include "base/util.h"
#include "image/hosts.h"

static void wipe(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

void credentials_fini(struct credentials *c)
{
	wipe(&c->user);
	wipe(&c->password);
	wipe(&c->token);
	wipe(&c->identity_token);
	free(c->server);
	c->server = NULL;
}

/* base64("user:password") */
static int decode_basic(const char *text, char **user, char **password, struct err *err)
{
	size_t n = strlen(text);
	cleanup_free unsigned char *out = malloc(n + 1);
	char *colon;
	int len;

	if (!out)
		return err_nomem(err);
	len = EVP_DecodeBlock(out, (const unsigned char *)text, (int)n);
	while (len > 0 && n && text[n - 1] == '=') {
		len--;
		n--;
	}
	out[len > 0 ? len : 0] = 0;
	colon = len > 0 ? strchr((char *)out, ':') : NULL;
	if (!colon)
		return err_set(err, -EINVAL, "credentials are not base64 of user:password");
	*colon = 0;
	*user = strdup((char *)out);
	*password = strdup(colon + 1);
	explicit_bzero(out, strlen(text));
	return *user && *password ? 0 : err_nomem(err);
}

/* "https://registry.example:5000/v2/" -> "registry.example:5000"; Docker Hub has several names. */
static char *server_name(const char *text)
{
	const char *name = strstr(text, "://");
	char *s;

	name = name ? name + 3 : text;
	s = strndup(name, strcspn(name, "/"));
	if (s && (!strcasecmp(s, "index.docker.io") || !strcasecmp(s, "registry-1.docker.io"))) {
		free(s);
		s = strdup("docker.io");
	}
	return s;
}

static int copy(const char *from, char **to)
{
	if (str_empty(from))
		return 0;
	*to = strdup(from);
	return *to ? 0 : -ENOMEM;
}

/* One kind: what is nearest to access first. */
static int set_secret(struct credentials *c, const struct image_auth *a, struct err *err)
{
	int r = 0;

	if (!str_empty(a->registry_token)) {
		r = copy(a->registry_token, &c->token);
	} else if (!str_empty(a->identity_token)) {
		r = copy(a->identity_token, &c->identity_token);
		if (r == 0)
			r = copy(a->username, &c->user);
	} else if (!str_empty(a->username)) {
		r = copy(a->username, &c->user);
		c->password = strdup(a->password ? a->password : "");
		r = c->password ? r : -ENOMEM;
	} else if (!str_empty(a->auth)) {
		return decode_basic(a->auth, &c->user, &c->password, err);
	}
	return r < 0 ? err_nomem(err) : 0;
}

static bool too_long(const char *s)
{
	return s && strnlen(s, CREDENTIALS_MAX + 1) > CREDENTIALS_MAX;
}

int credentials_set(struct credentials *c, const struct image_auth *a, struct err *err)
{
	memset(c, 0, sizeof(*c));
	if (!a)
		return 0;
	if (too_long(a->username) || too_long(a->password) || too_long(a->auth) ||
	    too_long(a->server_address) || too_long(a->identity_token) ||
	    too_long(a->registry_token))
		return err_set(err, -EINVAL, "credentials of more than %zu KiB",
			       CREDENTIALS_MAX / KIB);
	if (!str_empty(a->server_address)) {
		c->server = server_name(a->server_address);
		if (!c->server)
			return err_nomem(err);
	}
	return set_secret(c, a, err);
}

void credentials_mark(const struct credentials *c, const char *host, struct hosts *hosts)
{
	for (size_t k = 0; k < hosts->n; k++) {
		struct host *h = &hosts->v[k];
		cleanup_free char *name = server_name(h->url);
		bool own = !h->mirror && (!c->server || !strcasecmp(c->server, host));

		h->login = own || (c->server && name && !strcasecmp(c->server, name));
	}
}
