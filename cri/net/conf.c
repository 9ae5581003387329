#include "cri/net/conf.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cri/net/json.h"

/* Names of networks become names of files and of chains of the plug-ins (specification,
 * "Configuration format": alphanumeric first, then also . _ and -). */
static bool name_valid(const char *s)
{
	if (!s || !isalnum((unsigned char)s[0]) || strlen(s) > NET_CONF_NAME_MAX)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
			return false;
	return true;
}

/* The program is looked for in our directories only. */
static bool type_valid(const char *s)
{
	if (str_empty(s) || strlen(s) > NET_CONF_NAME_MAX || str_eq(s, ".") || str_eq(s, ".."))
		return false;
	for (; *s; s++)
		if (*s == '/' || (unsigned char)*s <= ' ' || *s == 0x7f)
			return false;
	return true;
}

static int pick_version(json_t *j, enum cni_version *ret, struct err *err)
{
	json_t *all = net_json_get(j, "cniVersions"), *v;
	const char *text = net_json_str(j, "cniVersion");
	int best = cni_version_parse(text);
	size_t i;

	if (all && !json_is_array(all))
		return err_set(err, -EPROTO, "cniVersions is no list");
	json_array_foreach (all, i, v) {
		best = MAX_OF(best, cni_version_parse(json_string_value(v)));
	}
	if (best < 0 && !text && !json_array_size(all))
		return err_set(err, -ENOTSUP, "no cniVersion; Husk speaks " CNI_SUPPORTED);
	if (best < 0)
		return err_set(err, -ENOTSUP,
			       "cniVersion \"%.32s\" is not known; Husk speaks " CNI_SUPPORTED,
			       text ? text : "(a list)");
	*ret = (enum cni_version)best;
	return 0;
}

static int check_plugin(json_t *p, size_t i, struct err *err)
{
	json_t *caps = net_json_get(p, "capabilities"), *v;
	const char *key;

	if (!json_is_object(p))
		return err_set(err, -EPROTO, "plug-in %zu is no object", i + 1);
	if (!type_valid(net_json_str(p, "type")))
		return err_set(err, -EINVAL, "plug-in %zu has no type that is a program's name",
			       i + 1);
	if (caps && !json_is_object(caps))
		return err_set(err, -EPROTO, "capabilities of plug-in %zu are no object", i + 1);
	json_object_foreach (caps, key, v) {
		if (!json_is_boolean(v))
			return err_set(err, -EPROTO,
				       "capability %.32s of plug-in %zu is neither true nor false",
				       key, i + 1);
	}
	return 0;
}

/* Older files have the words "true" and "false" there; the specification allows both. */
static int flag(const json_t *j, const char *key, bool *ret, struct err *err)
{
	json_t *v = net_json_get(j, key);
	const char *s = json_string_value(v);

	if (v && !json_is_boolean(v) && !str_eq(s, "true") && !str_eq(s, "false"))
		return err_set(err, -EPROTO, "%s is neither true nor false", key);
	*ret = json_is_true(v) || str_eq(s, "true");
	return 0;
}

static int list_check(struct net_list *l, struct err *err)
{
	json_t *plugins = json_object_get(l->json, "plugins");
	int r;

	l->name = net_json_str(l->json, "name");
	if (!name_valid(l->name))
		return err_set(err, -EINVAL,
			       "no name, or one that is not made of letters, digits, . _ and -");
	r = pick_version(l->json, &l->version, err);
	if (r == 0)
		r = flag(l->json, "disableCheck", &l->no_check, err);
	if (r == 0)
		r = flag(l->json, "disableGC", &l->no_gc, err);
	if (r < 0)
		return r;
	l->n = json_array_size(plugins);
	if (l->n == 0)
		return err_set(err, -EINVAL, "no plugins");
	if (l->n > NET_CONF_PLUGINS_MAX)
		return err_set(err, -EFBIG, "more than %u plug-ins", NET_CONF_PLUGINS_MAX);
	for (size_t i = 0; i < l->n && r == 0; i++)
		r = check_plugin(json_array_get(plugins, i), i, err);
	return r;
}

/* One plug-in as a list. */
static int wrap_single(json_t **j, struct err *err)
{
	const char *name = net_json_str(*j, "name");
	json_t *list;

	if (net_json_get(*j, "plugins"))
		return err_set(err, -EINVAL, "a list of plug-ins; such a file ends in .conflist");
	list = json_pack("{s:s*, s:O*, s:O*, s:[O]}", "name", name, "cniVersion",
			 json_object_get(*j, "cniVersion"), "cniVersions",
			 json_object_get(*j, "cniVersions"), "plugins", *j);
	if (!list)
		return err_nomem(err);
	json_decref(*j);
	*j = list;
	return 0;
}

int net_list_of(json_t *json, struct net_list **ret, struct err *err)
{
	cleanup_net_list struct net_list *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_nomem(err);
	l->json = json_incref(json);
	r = list_check(l, err);
	if (r == 0)
		*ret = take_ptr(&l);
	return r;
}

int net_list_parse(const char *text, size_t len, bool single, struct net_list **ret,
		   struct err *err)
{
	cleanup_json json_t *j = NULL;
	int r;

	if (len > NET_CONF_MAX)
		return err_set(err, -EFBIG, "more than %zu KiB", NET_CONF_MAX / KIB);
	r = net_json_parse(text, len, &j, err);
	if (r == 0 && single)
		r = wrap_single(&j, err);
	if (r == 0)
		r = net_list_of(j, ret, err);
	return r;
}

void net_list_free(struct net_list *l)
{
	if (!l)
		return;
	json_decref(l->json);
	free(l);
}

void net_list_freep(struct net_list **l)
{
	net_list_free(*l);
	*l = NULL;
}

const char *net_list_type(const struct net_list *l, size_t i)
{
	return net_json_str(json_array_get(json_object_get(l->json, "plugins"), i), "type");
}

/* Of the values for capabilities those that the plug-in asks for; NULL = none, or no memory. */
static json_t *runtime_config(json_t *plugin, json_t *caps, bool *nomem)
{
	json_t *wanted = json_object_get(plugin, "capabilities"), *out = NULL, *v;
	const char *key;

	json_object_foreach (caps, key, v) {
		if (!json_is_true(json_object_get(wanted, key)))
			continue;
		if (!out)
			out = json_object();
		if (!out || json_object_set(out, key, v) < 0)
			*nomem = true;
	}
	return out;
}

int net_list_config(const struct net_list *l, size_t i, json_t *caps, json_t *prev, json_t *extra,
		    json_t **ret, struct err *err)
{
	json_t *plugin = json_array_get(json_object_get(l->json, "plugins"), i);
	cleanup_json json_t *c = json_copy(plugin);
	bool nomem = false;
	json_t *rt = runtime_config(plugin, caps, &nomem);
	int r = c ? 0 : -1;

	/* What only the runtime says, never the file. */
	(void)json_object_del(c, "prevResult");
	(void)json_object_del(c, "runtimeConfig");
	(void)json_object_del(c, "cniVersions");
	r |= json_object_set_new(c, "name", json_string(l->name));
	r |= json_object_set_new(c, "cniVersion", json_string(cni_version_name(l->version)));
	if (rt)
		r |= json_object_set_new(c, "runtimeConfig", rt);
	if (prev)
		r |= json_object_set(c, "prevResult", prev);
	if (extra)
		r |= json_object_update(c, extra);
	if (r < 0 || nomem)
		return err_nomem(err);
	*ret = take_ptr(&c);
	return 0;
}
