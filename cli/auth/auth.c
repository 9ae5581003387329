#include "cli/auth/auth.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <jansson.h>

#include "base/util.h"
#include "cli/auth/helper.h"

/* Docker's own registry is kept under this key, and reached under these names. */
#define DOCKER_HOST "docker.io"
#define DOCKER_KEY "https://index.docker.io/v1/"

static void auth_free_json(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json cleanup_with(auth_free_json)

/* ---- servers ---- */

static bool is_docker(const char *host)
{
	return str_eq(host, DOCKER_HOST) || str_eq(host, "index.docker.io") ||
	       str_eq(host, "registry-1.docker.io");
}

/* Host of a key or URL: without scheme, and what follows a '/'. */
static char *host_of(const char *s)
{
	const char *p = strstr(s, "://");
	char *host;

	p = p ? p + 3 : s;
	host = strndup(p, strcspn(p, "/"));
	if (host && is_docker(host)) {
		free(host);
		host = strdup(DOCKER_HOST);
	}
	return host;
}

char *auth_server_of_argument(const char *arg)
{
	return host_of(str_empty(arg) ? DOCKER_HOST : arg);
}

/* The part before the first '/' is a host when it looks like one. */
char *auth_server_of_image(const char *image)
{
	size_t n = strcspn(image, "/");
	cleanup_free char *first = strndup(image, n);

	if (!first)
		return NULL;
	if (image[n] && (strpbrk(first, ".:") || str_eq(first, "localhost")))
		return host_of(first);
	return strdup(DOCKER_HOST);
}

static const char *key_of(const char *server)
{
	return str_eq(server, DOCKER_HOST) ? DOCKER_KEY : server;
}

/* ---- the file ---- */

static int config_path(char **ret, struct err *err)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	const struct passwd *pw;

	if (!str_empty(dir)) {
		*ret = str_fmt("%s/config.json", dir);
	} else {
		if (str_empty(home)) {
			pw = getpwuid(getuid());
			home = pw ? pw->pw_dir : "/";
		}
		*ret = str_fmt("%s/.docker/config.json", home);
	}
	return *ret ? 0 : err_nomem(err);
}

/* A file that is not there is an empty object. */
static int config_load(char **ret_path, json_t **ret, struct err *err)
{
	cleanup_free char *path = NULL, *text = NULL;
	struct err ignored = { 0 };
	json_error_t why;
	json_t *j;
	size_t len = 0;
	int r = config_path(&path, err);

	if (r < 0)
		return r;
	r = read_file(path, AUTH_MAX_FILE, &text, &len, &ignored);
	if (r < 0 && r != -ENOENT && r != -ENOTDIR)
		return err_errno(err, r, "%s", path);
	j = r < 0 || len == 0 ? json_object() : json_loadb(text, len, 0, &why);
	if (text)
		explicit_bzero(text, len);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(err, -EPROTO, "%s cannot be read as JSON: correct or remove it",
			       path);
	}
	*ret = j;
	*ret_path = take_ptr(&path);
	return 0;
}

static int config_save(const char *path, const json_t *j, struct err *err)
{
	cleanup_free char *text = json_dumps(j, JSON_INDENT(8));
	cleanup_free char *dir = strdup(path);
	char *real, *slash = dir ? strrchr(dir, '/') : NULL;
	int r = 0;

	if (!text || !slash)
		return err_nomem(err);
	*slash = '\0';
	if (slash != dir)
		r = mkdir_p(dir, 0700, err);
	if (r < 0)
		return r;
	/* The file that a link names is replaced, not the link. */
	real = realpath(path, NULL);
	r = write_file_atomic(real ? real : path, text, strlen(text), 0600, true, err);
	free(real);
	explicit_bzero(text, strlen(text));
	return r;
}

static const char *text_of(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return str_empty(s) ? NULL : s;
}

/* The helper program for a server, or NULL. */
static const char *helper_of(const json_t *config, const char *server)
{
	json_t *helpers = json_object_get(config, "credHelpers");
	const char *name = text_of(helpers, key_of(server));

	if (!name)
		name = text_of(helpers, server);
	return name ? name : text_of(config, "credsStore");
}

/* The entry of a server in "auths": by its key, or by what the key's host is. */
static json_t *entry_of(json_t *config, const char *server, const char **ret_key)
{
	json_t *auths = json_object_get(config, "auths"), *e;
	const char *key;

	e = json_object_get(auths, key_of(server));
	if (e) {
		*ret_key = key_of(server);
		return e;
	}
	json_object_foreach (auths, key, e) {
		cleanup_free char *host = host_of(key);

		if (str_eq(host, server)) {
			*ret_key = key;
			return e;
		}
	}
	return NULL;
}

static int copy(char **to, const char *from, struct err *err)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : err_nomem(err);
}

static int from_entry(const json_t *e, struct auth *ret, struct err *err)
{
	int r = copy(&ret->username, text_of(e, "username"), err);

	if (r == 0)
		r = copy(&ret->password, text_of(e, "password"), err);
	if (r == 0 && !ret->username)
		r = copy(&ret->basic, text_of(e, "auth"), err);
	if (r == 0)
		r = copy(&ret->identity_token, text_of(e, "identitytoken"), err);
	if (r == 0)
		r = copy(&ret->registry_token, text_of(e, "registrytoken"), err);
	return r;
}

int auth_find(const char *server, struct auth *ret, struct err *err)
{
	cleanup_free char *path = NULL;
	cleanup_json json_t *config = NULL;
	struct auth a = { 0 };
	const char *helper, *key;
	json_t *e;
	int r = config_load(&path, &config, err);

	if (r < 0)
		return r;
	helper = helper_of(config, server);
	if (helper) {
		r = helper_get(helper, key_of(server), &a, err);
		if (r < 0 && r != -ENOENT)
			return err_wrap(
				err, r,
				"credentials for %s (remove the helper from %s to do without)",
				server, path);
	}
	e = auth_empty(&a) ? entry_of(config, server, &key) : NULL;
	if (e)
		r = from_entry(e, &a, err);
	if (r < 0 && r != -ENOENT) {
		auth_fini(&a);
		return r;
	}
	*ret = a;
	return 0;
}

int auth_for_image(const char *image, struct auth *ret, struct err *err)
{
	cleanup_free char *server = auth_server_of_image(image);

	return server ? auth_find(server, ret, err) : err_nomem(err);
}

/* ---- storing ---- */

static char *base64(const char *s)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strlen(s), k = 0;
	char *out = malloc((n + 2) / 3 * 4 + 1);

	for (size_t i = 0; out && i < n; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16;

		v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
		v |= i + 2 < n ? p[i + 2] : 0;
		out[k++] = digits[v >> 18];
		out[k++] = digits[v >> 12 & 63];
		out[k++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
		out[k++] = i + 2 < n ? digits[v & 63] : '=';
	}
	if (out)
		out[k] = '\0';
	return out;
}

/* What `auths` says of the server; with a helper, only that there is something. */
static json_t *new_entry(const struct auth *a, bool in_helper)
{
	cleanup_free char *pair = NULL, *basic = NULL;
	json_t *e = json_object();

	if (in_helper || !e)
		return e;
	/* Docker writes the user name with an empty password beside an identity token. */
	pair = str_fmt("%s:%s", a->username, a->identity_token ? "" : a->password);
	basic = pair ? base64(pair) : NULL;
	if (pair)
		explicit_bzero(pair, strlen(pair));
	if (!basic || json_object_set_new(e, "auth", json_string(basic)) < 0 ||
	    (a->identity_token &&
	     json_object_set_new(e, "identitytoken", json_string(a->identity_token)) < 0)) {
		json_decref(e);
		e = NULL;
	}
	if (basic)
		explicit_bzero(basic, strlen(basic));
	return e;
}

int auth_store(const char *server, const struct auth *a, char **ret_where, struct err *err)
{
	cleanup_free char *path = NULL, *where = NULL;
	cleanup_json json_t *config = NULL;
	const char *helper, *key = key_of(server);
	json_t *auths;
	int r = config_load(&path, &config, err);

	if (r < 0)
		return r;
	helper = helper_of(config, server);
	if (helper)
		r = helper_store(helper, key, a, err);
	if (r < 0)
		return r;
	auths = json_object_get(config, "auths");
	if (!json_is_object(auths)) {
		(void)json_object_set_new(config, "auths", json_object());
		auths = json_object_get(config, "auths");
	}
	/* An older entry under another form of the name would be found by others. */
	(void)entry_of(config, server, &key);
	if (json_object_set_new(auths, key, new_entry(a, helper != NULL)) < 0)
		return err_nomem(err);
	where = helper ? str_fmt("the helper docker-credential-%s", helper) : strdup(path);
	if (!where)
		return err_nomem(err);
	r = config_save(path, config, err);
	if (r == 0)
		*ret_where = take_ptr(&where);
	return r;
}

int auth_erase(const char *server, struct err *err)
{
	cleanup_free char *path = NULL;
	cleanup_json json_t *config = NULL;
	struct auth a = { 0 };
	const char *helper, *key;
	bool found = false;
	int r = config_load(&path, &config, err);

	if (r < 0)
		return r;
	helper = helper_of(config, server);
	if (helper) {
		r = helper_get(helper, key_of(server), &a, err);
		found = r == 0;
		auth_fini(&a);
		if (r == 0)
			r = helper_erase(helper, key_of(server), err);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	if (entry_of(config, server, &key)) {
		found = true;
		(void)json_object_del(json_object_get(config, "auths"), key);
		r = config_save(path, config, err);
		if (r < 0)
			return r;
	}
	return found ? 0 : err_set(err, -ENOENT, "not logged in to %s", server);
}
