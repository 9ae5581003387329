#include "cri/runtime/spec_env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "base/util.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Room for all of them is made at the start, so the list does not grow. */
struct env {
	char **kv; /* "K=V", owned */
	size_t n;
	json_t *places; /* name -> index in kv */
};

static void spec_env_fini(struct env *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->kv[i]);
	free(e->kv);
	json_decref(e->places);
}

/* Takes over kv; NULL = without memory. */
static int env_set(struct env *e, const char *name, char *kv, struct err *err)
{
	json_t *place = kv ? json_object_get(e->places, name) : NULL;
	size_t i = place ? (size_t)json_integer_value(place) : e->n;

	if (!kv ||
	    (!place && json_object_set_new(e->places, name, json_integer((json_int_t)e->n)) < 0)) {
		free(kv);
		return err_nomem(err);
	}
	if (place)
		free(e->kv[i]);
	else
		e->n++;
	e->kv[i] = kv;
	return 0;
}

static int set_image(struct env *e, const char *kv, struct err *err)
{
	const char *eq = strchr(kv, '=');
	cleanup_free char *name = NULL;

	if (!eq || eq == kv)
		return 0;
	name = strndup(kv, (size_t)(eq - kv));
	return name ? env_set(e, name, strdup(kv), err) : err_nomem(err);
}

static int set_config(struct env *e, const Cri__KeyValue *kv, struct err *err)
{
	const char *value = kv->value.len ? (const char *)kv->value.data : "";

	if (str_empty(kv->key) || strchr(kv->key, '='))
		return err_set(err, -EINVAL, "environment variable with a bad name \"%.200s\"",
			       kv->key);
	if (memchr(value, 0, kv->value.len))
		return err_set(err, -EINVAL, "environment variable %.200s: NUL byte", kv->key);
	return env_set(e, kv->key, str_fmt("%s=%.*s", kv->key, (int)kv->value.len, value), err);
}

static int fill(struct env *e, const struct spec_input *in, struct err *err)
{
	const Cri__ContainerConfig *c = in->container;
	int r = env_set(e, "PATH", strdup("PATH=" PATH_DEFAULT), err);

	if (r == 0 && c->tty)
		r = env_set(e, "TERM", strdup("TERM=xterm"), err);
	if (r == 0 && !str_empty(in->pod->hostname))
		r = env_set(e, "HOSTNAME", str_fmt("HOSTNAME=%s", in->pod->hostname), err);
	for (char **kv = in->image->env; r == 0 && *kv; kv++)
		r = set_image(e, *kv, err);
	for (size_t i = 0; r == 0 && i < c->n_envs; i++)
		r = set_config(e, c->envs[i], err);
	return r;
}

static json_t *hex_json(const char *kv)
{
	size_t n = strlen(kv);
	cleanup_free char *hex = malloc(2 * n + 1);

	if (!hex)
		return NULL;
	hex_encode(kv, n, hex);
	return json_string(hex);
}

static int emit(const struct env *e, json_t *process, struct err *err)
{
	json_t *text = json_array(), *hex = json_array();
	int r = 0;

	for (size_t i = 0; i < e->n && r == 0; i++)
		r = utf8_valid(e->kv[i]) ? json_array_append_new(text, json_string(e->kv[i]))
					 : json_array_append_new(hex, hex_json(e->kv[i]));
	if (json_array_size(hex) == 0) {
		json_decref(hex);
		hex = NULL;
	}
	if (hex && json_object_set_new(process, PROCESS_ENV_HEX, hex) < 0)
		r = -1;
	if (json_object_set_new(process, "env", text) < 0)
		r = -1;
	return r < 0 ? err_nomem(err) : 0;
}

int spec_env(const struct spec_input *in, json_t *process, struct err *err)
{
	size_t room = 3 + strv_len(in->image->env) + in->container->n_envs;
	struct env cleanup_with(spec_env_fini) e = { .places = json_object() };
	int r;

	e.kv = calloc(room, sizeof(*e.kv));
	if (!e.kv || !e.places)
		return err_nomem(err);
	r = fill(&e, in, err);
	return r == 0 ? emit(&e, process, err) : r;
}

/* As the kernel counts: each string with its NUL, and a pointer to it. */
static size_t size_of(json_t *list, size_t digits_per_byte)
{
	size_t i, sum = 0;
	json_t *s;

	json_array_foreach (list, i, s)
		sum += json_string_length(s) / digits_per_byte + 1 + sizeof(uint64_t);
	return sum;
}

int spec_env_check_size(json_t *process, struct err *err)
{
	json_t *args = json_object_get(process, "args"), *env = json_object_get(process, "env");
	json_t *hex = json_object_get(process, PROCESS_ENV_HEX);
	size_t n = size_of(args, 1) + size_of(env, 1) + size_of(hex, 2);

	if (n <= PROCESS_BYTES_MAX)
		return 0;
	return err_set(err, -E2BIG, "argument list too long: arguments and environment are %zu KiB",
		       n / KIB);
}
