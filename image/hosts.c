#include "image/hosts.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/address.h"
#include "image/toml.h"

#define DOCKER_SERVER "registry-1.docker.io"
#define MAX_URL 1024

struct load {
	const char *name; /* of the file, for errors */
	const char *base; /* of the names of certificates */
	const char *host; /* of the images */
	struct hosts *hosts;
	struct err *err;
};

static int no_memory(struct load *l)
{
	return err_nomem(l->err);
}

static int bad(struct load *l, const struct toml *t, const char *what)
{
	return err_set(l->err, -EINVAL, "%s:%u: %s", l->name, t->line, what);
}

/* ---- the list ---- */

void host_fini(struct host *h)
{
	free(h->url);
	free(h->ca);
	free(h->cert);
	if (h->key)
		explicit_bzero(h->key, strlen(h->key));
	free(h->key);
	strv_free(h->headers);
	memset(h, 0, sizeof(*h));
}

void hosts_fini(struct hosts *h)
{
	for (size_t k = 0; k < h->n; k++)
		host_fini(&h->v[k]);
	free(h->file);
	memset(h, 0, sizeof(*h));
}

static bool copy_text(const char *from, char **to)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

int host_copy(const struct host *from, struct host *ret)
{
	struct host h = { .capabilities = from->capabilities,
			  .skip_verify = from->skip_verify,
			  .login = from->login,
			  .mirror = from->mirror,
			  .ns = from->ns };
	size_t n = from->headers ? strv_len(from->headers) : 0;
	bool ok = copy_text(from->url, &h.url) && copy_text(from->ca, &h.ca) &&
		  copy_text(from->cert, &h.cert) && copy_text(from->key, &h.key);

	if (ok && n) {
		h.headers = calloc(n + 1, sizeof(*h.headers));
		ok = h.headers != NULL;
		for (size_t k = 0; ok && k < n; k++)
			ok = copy_text(from->headers[k], &h.headers[k]);
	}
	if (!ok) {
		host_fini(&h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

static const char *server_of(const char *host)
{
	return str_eq(host, "docker.io") || str_eq(host, "index.docker.io") ? DOCKER_SERVER : host;
}

/* Takes over *h. */
static int add(struct load *l, struct host *h)
{
	const char *name = strstr(h->url, "://") + 3, *server = server_of(l->host);
	size_t n = strcspn(name, "/");

	h->ns = strlen(server) != n || strncasecmp(server, name, n) != 0;
	for (size_t k = 0; k < l->hosts->n; k++) {
		struct host *o = &l->hosts->v[k];

		/* The server itself, once more at the end. */
		if (str_eq(o->url, h->url) && !(h->capabilities & ~o->capabilities)) {
			o->mirror = o->mirror && h->mirror;
			host_fini(h);
			return 0;
		}
	}
	if (l->hosts->n == HOSTS_MAX) {
		host_fini(h);
		return err_set(l->err, -EINVAL, "%s: more than %d hosts", l->name, HOSTS_MAX - 1);
	}
	l->hosts->v[l->hosts->n++] = *h;
	memset(h, 0, sizeof(*h));
	return 0;
}

/* ---- URLs ---- */

static bool url_char(char c, bool path)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr(path ? "/-._~%!$&'()*+,;=:@" : "-._:[]", c));
}

/* The path without double slashes and without one at the end; false: there is something odd. */
static bool clean_path(const char *path, char *out, size_t max)
{
	size_t n = 0;

	while (*path) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (!len)
			break;
		if ((len == 1 && *path == '.') || (len == 2 && !memcmp(path, "..", 2)) ||
		    n + len + 2 > max)
			return false;
		out[n++] = '/';
		memcpy(out + n, path, len);
		n += len;
		path += len;
	}
	out[n] = 0;
	return true;
}

/* "mirror.example:5000/prefix" -> "https://mirror.example:5000/prefix/v2" */
static int make_url(struct load *l, const char *text, unsigned line, bool override_path, char **ret)
{
	const char *scheme = str_starts(text, "http://") ? "http" : "https";
	const char *host = strstr(text, "://") ? strstr(text, "://") + 3 : text;
	char path[MAX_URL], name[MAX_URL];
	size_t n = strcspn(host, "/");
	bool ok = strlen(text) < MAX_URL && n &&
		  (host == text || str_starts(text, "http://") || str_starts(text, "https://"));

	for (size_t k = 0; ok && host[k]; k++)
		ok = url_char(host[k], k >= n);
	if (!ok || !clean_path(host + n, path, sizeof(path)))
		return err_set(l->err, -EINVAL, "%s:%u: bad address \"%.200s\"", l->name, line,
			       text);
	snprintf(name, sizeof(name), "%.*s", (int)n, host);
	*ret = str_fmt("%s://%s%s%s", scheme, server_of(name), path,
		       override_path || str_ends(path, "/v2") ? "" : "/v2");
	return *ret ? 0 : no_memory(l);
}

/* ---- certificates ---- */

/* Appends a PEM file to *to. */
static int add_pem(struct load *l, const char *file, char **to)
{
	cleanup_free char *path = *file == '/' ? strdup(file) : str_fmt("%s/%s", l->base, file);
	cleanup_free char *text = NULL;
	size_t len, had = *to ? strlen(*to) : 0;
	char *all;
	int r;

	if (!path)
		return no_memory(l);
	r = read_file(path, HOSTS_MAX_PEM, &text, &len, l->err);
	if (r < 0)
		return err_wrap(l->err, r == -ENOMEM ? r : -EINVAL, "%s", l->name);
	if (strlen(text) != len || !strstr(text, "-----BEGIN "))
		return err_set(l->err, -EINVAL, "%s: %s is no PEM file", l->name, path);
	if (had + len > HOSTS_MAX_PEM)
		return err_set(l->err, -EINVAL, "%s: more than %zu KiB of certificates", l->name,
			       HOSTS_MAX_PEM / KIB);
	for (char *c = text; *c; c++) /* a comment in another character set */
		*c = (signed char)*c < 0 ? '?' : *c;
	all = realloc(*to, had + len + 2);
	if (all) {
		snprintf(all + had, len + 2, "%s\n", text);
		*to = all;
	}
	explicit_bzero(text, len);
	return all ? 0 : no_memory(l);
}

static int read_ca(struct load *l, const struct toml *t, struct host *h)
{
	int r = 0;

	if (!t)
		return 0;
	if (t->kind == TOML_STRING)
		return add_pem(l, t->text, &h->ca);
	if (t->kind != TOML_ARRAY)
		return bad(l, t, "ca is no file name or list of file names");
	for (const struct toml *e = t->first; r == 0 && e; e = e->next)
		r = e->kind == TOML_STRING ? add_pem(l, e->text, &h->ca)
					   : bad(l, e, "ca has something that is no file name");
	return r;
}

/* "file", ["file"], [["cert", "key"]]: one certificate, which is all that one host can need. */
static int read_client(struct load *l, const struct toml *t, struct host *h)
{
	const struct toml *e = t, *key = NULL;
	int r;

	if (!t)
		return 0;
	if (e->kind == TOML_ARRAY) {
		e = e->first;
		if (!e)
			return 0;
		if (e->next)
			return bad(l, t, "client has more than one certificate");
	}
	if (e->kind == TOML_ARRAY) {
		e = e->first;
		key = e ? e->next : NULL;
		if (!e || (key && (key->next || key->kind != TOML_STRING)))
			return bad(l, t, "client is no pair of certificate and key");
	}
	if (e->kind != TOML_STRING)
		return bad(l, t, "client is no file name or pair of file names");
	r = add_pem(l, e->text, &h->cert);
	return r < 0 || !key || str_empty(key->text) ? r : add_pem(l, key->text, &h->key);
}

/* ---- the other settings ---- */

static int read_capabilities(struct load *l, const struct toml *t, struct host *h)
{
	h->capabilities = 0;
	if (t && t->kind != TOML_ARRAY)
		return bad(l, t, "capabilities is no list");
	for (const struct toml *e = t ? t->first : NULL; e; e = e->next) {
		if (e->kind != TOML_STRING)
			return bad(l, e, "a capability that is no text");
		if (str_eq(e->text, "pull"))
			h->capabilities |= HOST_PULL;
		else if (str_eq(e->text, "resolve"))
			h->capabilities |= HOST_RESOLVE;
		else if (str_eq(e->text, "push"))
			h->capabilities |= HOST_PUSH;
		else
			return bad(l, e, "capabilities are \"pull\", \"resolve\" and \"push\"");
	}
	if (!h->capabilities)
		h->capabilities = HOST_ALL;
	return 0;
}

static int read_bool(struct load *l, const struct toml *table, const char *key, bool *ret)
{
	const struct toml *t = toml_get(table, key);
	char what[64];

	*ret = t && t->kind == TOML_BOOL && t->truth;
	if (!t || t->kind == TOML_BOOL)
		return 0;
	snprintf(what, sizeof(what), "%s is neither true nor false", key);
	return bad(l, t, what);
}

static bool header_ok(const char *name, const char *value)
{
	for (const char *c = name; *c; c++)
		if (!url_char(*c, false) || strchr(":[]", *c))
			return false;
	for (const char *c = value; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
			return false;
	return *name && strlen(name) + strlen(value) < 8 * KIB;
}

static int add_header(struct load *l, const struct toml *t, const char *name, struct host *h)
{
	size_t n = h->headers ? strv_len(h->headers) : 0;
	char **more;

	if (t->kind != TOML_STRING || !header_ok(name, t->text))
		return bad(l, t, "a header that is no header");
	if (n == HOSTS_MAX_HEADERS)
		return bad(l, t, "too many headers");
	more = realloc(h->headers, (n + 2) * sizeof(*more));
	if (!more)
		return no_memory(l);
	h->headers = more;
	/* An empty one: libcurl would leave "Name:" out. */
	more[n] = *t->text ? str_fmt("%s: %s", name, t->text) : str_fmt("%s;", name);
	more[n + 1] = NULL;
	return more[n] ? 0 : no_memory(l);
}

static int read_headers(struct load *l, const struct toml *t, struct host *h)
{
	int r = 0;

	if (t && t->kind != TOML_TABLE)
		return bad(l, t, "header is no table");
	for (const struct toml *e = t ? t->first : NULL; r == 0 && e; e = e->next) {
		if (e->kind != TOML_ARRAY) {
			r = add_header(l, e, e->key, h);
			continue;
		}
		for (const struct toml *v = e->first; r == 0 && v; v = v->next)
			r = add_header(l, v, e->key, h);
	}
	return r;
}

static int read_host(struct load *l, const struct toml *t, const char *url, bool mirror)
{
	struct host h = { .mirror = mirror };
	bool override_path = false;
	int r = read_bool(l, t, "override_path", &override_path);

	if (r == 0)
		r = make_url(l, url, t->line, override_path, &h.url);
	if (r == 0)
		r = read_bool(l, t, "skip_verify", &h.skip_verify);
	if (r == 0)
		r = read_capabilities(l, toml_get(t, "capabilities"), &h);
	if (r == 0)
		r = read_ca(l, toml_get(t, "ca"), &h);
	if (r == 0)
		r = read_client(l, toml_get(t, "client"), &h);
	if (r == 0)
		r = read_headers(l, toml_get(t, "header"), &h);
	if (r < 0) {
		host_fini(&h);
		return r;
	}
	return add(l, &h);
}

/* ---- files ---- */

/* Without certificates a registry on this machine speaks plain HTTP. */
static char *default_url(const char *host, bool tls)
{
	return str_fmt("%s://%s", tls || !host_is_loopback(host) ? "https" : "http",
		       server_of(host));
}

int hosts_parse(const char *text, size_t len, const char *name, const char *base, const char *host,
		struct hosts *ret, struct err *err)
{
	struct hosts hosts = { 0 };
	struct load l = { name, base, host, &hosts, err };
	cleanup_toml struct toml *root = NULL;
	cleanup_free char *url = NULL;
	const struct toml *server, *list;
	int r = toml_parse(text, len, name, &root, err);

	if (r < 0)
		return r;
	url = default_url(host, toml_get(root, "ca") || toml_get(root, "client") ||
					toml_get(root, "skip_verify"));
	if (!url)
		return no_memory(&l);
	server = toml_get(root, "server");
	list = toml_get(root, "host");
	if (server && server->kind != TOML_STRING)
		r = bad(&l, server, "server is no text");
	else if (list && list->kind != TOML_TABLE)
		r = bad(&l, list, "host is no table");
	for (const struct toml *t = r == 0 && list ? list->first : NULL; r == 0 && t; t = t->next)
		r = t->kind == TOML_TABLE ? read_host(&l, t, t->key, true)
					  : bad(&l, t, "a host that is no table");
	if (r == 0)
		r = read_host(&l, root, server && *server->text ? server->text : url, false);
	if (r < 0) {
		hosts_fini(&hosts);
		return r;
	}
	*ret = hosts;
	return 0;
}

static int hosts_by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Docker's way: NAME.crt is a CA, NAME.cert and NAME.key are ours. */
static int load_docker(const char *dir, const char *host, struct hosts *ret, struct err *err)
{
	struct hosts hosts = { 0 };
	struct load l = { dir, dir, host, &hosts, err };
	struct host h = { .capabilities = HOST_ALL };
	cleanup_free char *url = NULL;
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, hosts_by_name),
	    r = n < 0 ? err_errno(err, -errno, "%s", dir) : 0;

	for (int k = 0; k < n; k++) {
		const char *name = names[k]->d_name;

		if (r == 0 && str_ends(name, ".crt"))
			r = add_pem(&l, name, &h.ca);
		else if (r == 0 && str_ends(name, ".cert") && !h.cert)
			r = add_pem(&l, name, &h.cert);
		else if (r == 0 && str_ends(name, ".key") && !h.key)
			r = add_pem(&l, name, &h.key);
		free(names[k]);
	}
	free(names);
	if (r == 0 && h.key && !h.cert)
		r = err_set(err, -EINVAL, "%s has a .key file, but no .cert file", dir);
	url = default_url(host, h.ca || h.cert);
	if (r == 0)
		r = url ? make_url(&l, url, 0, false, &h.url) : no_memory(&l);
	if (r < 0) {
		host_fini(&h);
		return r;
	}
	r = add(&l, &h);
	if (r == 0)
		*ret = hosts;
	return r;
}

/* dir/name when it is a directory; else *ret stays NULL. */
static int try_dir(char *path, char **ret)
{
	struct stat st;

	if (!path)
		return -ENOMEM;
	if (!*ret && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		*ret = path;
	else
		free(path);
	return 0;
}

/* The first of <host>_<port>_, <host>:<port> (or <host>), _default; NULL: there is none. */
static int find_dir(const char *dir, const char *host, char **ret)
{
	const char *colon = strrchr(host, ':');
	int r = 0;

	/* A colon inside of brackets is no port's. */
	if (colon && !strchr(colon, ']'))
		r = try_dir(str_fmt("%s/%.*s_%s_", dir, (int)(colon - host), host, colon + 1), ret);
	if (r == 0)
		r = try_dir(str_fmt("%s/%s", dir, host), ret);
	if (r == 0)
		r = try_dir(str_fmt("%s/_default", dir), ret);
	return r;
}

int hosts_load(const char *dir, const char *host, struct hosts *ret, struct err *err)
{
	cleanup_free char *found = NULL, *file = NULL, *text = NULL;
	size_t len = 0;
	int r = dir ? find_dir(dir, host, &found) : 0;

	if (r < 0)
		return err_nomem(err);
	if (!found)
		return hosts_parse("", 0, "defaults", "/", host, ret, err);
	file = str_fmt("%s/hosts.toml", found);
	if (!file)
		return err_nomem(err);
	if (access(file, F_OK) < 0 && errno == ENOENT)
		return load_docker(found, host, ret, err);
	r = read_file(file, HOSTS_MAX_FILE, &text, &len, err);
	if (r == 0)
		r = hosts_parse(text, len, file, found, host, ret, err);
	if (r == 0)
		ret->file = take_ptr(&file);
	return r;
}
