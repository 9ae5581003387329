/* process of OCI: what runs, as whom, with which rights and limits. */
#include <string.h>

#include "base/capname.h"
#include "base/limits.h"
#include "base/util.h"
#include "shim/oci/json.h"

static int cap_set(struct oci *o, const char *path, json_t *v, uint64_t *ret)
{
	uint64_t bits = 0;
	size_t i;
	json_t *e;
	int cap;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	json_array_foreach (v, i, e) {
		cap = capname_find(json_string_value(e));
		if (cap < 0)
			return oci_bad(o, path, "names an unknown capability");
		bits |= UINT64_C(1) << cap;
	}
	*ret = bits;
	return 0;
}

#define CAP_FIELD(set)                                                                             \
	static int cap_##set(struct oci *o, const char *path, json_t *v)                           \
	{                                                                                          \
		return cap_set(o, path, v, &o->process->capabilities->set);                        \
	}
CAP_FIELD(bounding)
CAP_FIELD(effective)
CAP_FIELD(permitted)
CAP_FIELD(inheritable)
CAP_FIELD(ambient)

static const struct oci_field cap_fields[] = {
	{ "bounding", OCI_TAKE, cap_bounding },	  { "effective", OCI_TAKE, cap_effective },
	{ "permitted", OCI_TAKE, cap_permitted }, { "inheritable", OCI_TAKE, cap_inheritable },
	{ "ambient", OCI_TAKE, cap_ambient },
};

static int process_capabilities(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, cap_fields);
}

static int user_id(struct oci *o, const char *path, json_t *v, uint32_t *ret)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT32_MAX - 1, &n);

	if (r == 0)
		*ret = (uint32_t)n;
	return r;
}

static int process_uid(struct oci *o, const char *path, json_t *v)
{
	return user_id(o, path, v, &o->process->user->uid);
}

static int process_gid(struct oci *o, const char *path, json_t *v)
{
	return user_id(o, path, v, &o->process->user->gid);
}

static int process_umask(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, 0777, &n);

	if (r < 0)
		return r;
	/* The agent's 0 means its default. */
	if (n == 0)
		return oci_unsupported(o, path, "a umask of 0");
	o->process->user->umask = (uint32_t)n;
	return 0;
}

static int process_username(struct oci *o, const char *path, json_t *v)
{
	return oci_string(o, path, v, &o->process->user->name);
}

static int process_gids(struct oci *o, const char *path, json_t *v)
{
	Agent__User *u = o->process->user;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	if (n > PROCESS_GROUPS_MAX)
		return oci_bad(o, path, "has too many entries");
	u->additional_gids = oci_alloc(o, n * sizeof(*u->additional_gids));
	if (!u->additional_gids)
		return oci_oom(o);
	u->n_additional_gids = n;
	for (size_t i = 0; i < n; i++) {
		r = user_id(o, path, json_array_get(v, i), &u->additional_gids[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int process_strict_groups(struct oci *o, const char *path, json_t *v)
{
	bool strict = false;
	int r = oci_bool(o, path, v, &strict);

	o->process->user->strict_groups = strict;
	return r;
}

/* `username` is ours on Linux: the user of the image, by name, as in an image configuration; so is
 * `strictGroups`: CRI's policy Strict for the groups of such a user. */
static const struct oci_field user_fields[] = {
	{ "uid", OCI_TAKE, process_uid },
	{ "gid", OCI_TAKE, process_gid },
	{ "umask", OCI_TAKE, process_umask },
	{ "additionalGids", OCI_TAKE, process_gids },
	{ "username", OCI_TAKE, process_username },
	{ "strictGroups", OCI_TAKE, process_strict_groups },
};

static int process_user(struct oci *o, const char *path, json_t *v)
{
	Agent__User *u = o->process->user;
	int r = oci_fields(o, path, v, user_fields);

	if (r == 0 && *u->name && (u->uid || u->gid))
		return oci_bad(o, path, "has a username beside uid and gid");
	return r;
}

static const char *const rlimit_names[] = {
	"RLIMIT_AS",	 "RLIMIT_CORE",	  "RLIMIT_CPU",	       "RLIMIT_DATA",
	"RLIMIT_FSIZE",	 "RLIMIT_LOCKS",  "RLIMIT_MEMLOCK",    "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE",	 "RLIMIT_NOFILE", "RLIMIT_NPROC",      "RLIMIT_RSS",
	"RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
};

static int one_rlimit(struct oci *o, const char *path, json_t *v, Agent__Rlimit *l)
{
	json_t *type = json_object_get(v, "type"), *soft = json_object_get(v, "soft"),
	       *hard = json_object_get(v, "hard");
	int r;

	if (json_object_size(v) != 3 || !type || !soft || !hard)
		return oci_bad(o, path, "is not a list of {type, soft, hard}");
	r = oci_string(o, path, type, &l->type);
	if (r == 0)
		r = oci_u64(o, path, soft, UINT64_MAX, &l->soft);
	if (r == 0)
		r = oci_u64(o, path, hard, UINT64_MAX, &l->hard);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(rlimit_names); i++) {
		if (str_eq(rlimit_names[i], l->type))
			return 0;
	}
	return oci_bad(o, path, "has an unknown type");
}

static int process_rlimits(struct oci *o, const char *path, json_t *v)
{
	Agent__Process *p = o->process;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v) || n > 2 * ARRAY_SIZE(rlimit_names))
		return oci_bad(o, path, "is not a list, or is too long");
	p->rlimits = oci_alloc(o, n * sizeof(*p->rlimits));
	if (!p->rlimits)
		return oci_oom(o);
	for (size_t i = 0; i < n; i++) {
		p->rlimits[i] = oci_alloc(o, sizeof(**p->rlimits));
		if (!p->rlimits[i])
			return oci_oom(o);
		agent__rlimit__init(p->rlimits[i]);
		r = one_rlimit(o, path, json_array_get(v, i), p->rlimits[i]);
		if (r < 0)
			return r;
	}
	p->n_rlimits = n;
	return 0;
}

static int process_terminal(struct oci *o, const char *path, json_t *v)
{
	bool b;
	int r = oci_bool(o, path, v, &b);

	if (r == 0)
		o->process->terminal = b;
	return r;
}

static int process_width(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT16_MAX, &n);

	if (r == 0)
		o->process->width = (uint32_t)n;
	return r;
}

static int process_height(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT16_MAX, &n);

	if (r == 0)
		o->process->height = (uint32_t)n;
	return r;
}

static const struct oci_field console_fields[] = {
	{ "width", OCI_TAKE, process_width },
	{ "height", OCI_TAKE, process_height },
};

static int process_console(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, console_fields);
}

static int process_args(struct oci *o, const char *path, json_t *v)
{
	return oci_strings(o, path, v, PROCESS_ARGS_MAX, &o->process->n_args, &o->process->args);
}

/* Appends to what is there: "env" and its hexadecimal part come in any order. */
static int process_env(struct oci *o, const char *path, json_t *v)
{
	size_t old = o->process->n_env, n = 0;
	ProtobufCBinaryData *list;
	char **strings = NULL;
	int r = oci_strings(o, path, v, PROCESS_ARGS_MAX - old, &n, &strings);

	if (r < 0)
		return r;
	list = oci_alloc(o, (old + n) * sizeof(*list));
	if (!list)
		return oci_oom(o);
	if (old)
		memcpy(list, o->process->env, old * sizeof(*list));
	for (size_t i = 0; i < n; i++)
		list[old + i] = (ProtobufCBinaryData){ strlen(strings[i]), (uint8_t *)strings[i] };
	o->process->env = list;
	o->process->n_env = old + n;
	return 0;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* In place: a byte never comes before its digits. */
static int hex_decode(struct oci *o, const char *path, ProtobufCBinaryData *b)
{
	if (b->len % 2)
		return oci_bad(o, path, "is not hexadecimal");
	b->len /= 2;
	for (size_t i = 0; i < b->len; i++) {
		int high = hex_digit((char)b->data[2 * i]);
		int low = hex_digit((char)b->data[2 * i + 1]);

		if (high < 0 || low < 0)
			return oci_bad(o, path, "is not hexadecimal");
		b->data[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

/* Of huskd: values that are not UTF-8. */
static int process_env_hex(struct oci *o, const char *path, json_t *v)
{
	size_t old = o->process->n_env;
	int r = process_env(o, path, v);

	for (size_t i = old; r == 0 && i < o->process->n_env; i++)
		r = hex_decode(o, path, &o->process->env[i]);
	return r;
}

static int process_cwd(struct oci *o, const char *path, json_t *v)
{
	int r = oci_string(o, path, v, &o->process->cwd);

	if (r == 0 && *o->process->cwd != '/')
		return oci_bad(o, path, "is not absolute");
	return r;
}

static int process_no_new_privileges(struct oci *o, const char *path, json_t *v)
{
	bool b;
	int r = oci_bool(o, path, v, &b);

	if (r == 0)
		o->process->no_new_privileges = b;
	return r;
}

static int process_oom_score(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, -1000, 1000, &n);

	if (r == 0)
		o->process->oom_score_adj = (int32_t)n;
	return r;
}

static const struct oci_field process_fields[] = {
	{ "terminal", OCI_TAKE, process_terminal },
	{ "consoleSize", OCI_TAKE, process_console },
	{ "user", OCI_TAKE, process_user },
	{ "args", OCI_TAKE, process_args },
	{ "commandLine", OCI_REFUSE, NULL },
	{ "env", OCI_TAKE, process_env },
	{ PROCESS_ENV_HEX, OCI_TAKE, process_env_hex },
	{ "cwd", OCI_TAKE, process_cwd },
	{ "capabilities", OCI_TAKE, process_capabilities },
	{ "rlimits", OCI_TAKE, process_rlimits },
	{ "noNewPrivileges", OCI_TAKE, process_no_new_privileges },
	{ "apparmorProfile", OCI_REFUSE, NULL },
	{ "oomScoreAdj", OCI_TAKE, process_oom_score },
	{ "selinuxLabel", OCI_REFUSE, NULL },
	{ "scheduler", OCI_REFUSE, NULL },
	{ "ioPriority", OCI_REFUSE, NULL },
	{ "execCPUAffinity", OCI_REFUSE, NULL },
};

int oci_process(struct oci *o, const char *path, json_t *v, Agent__Process **ret)
{
	Agent__Process *p = oci_alloc(o, sizeof(*p));
	int r;

	if (!p)
		return oci_oom(o);
	agent__process__init(p);
	p->user = oci_alloc(o, sizeof(*p->user));
	p->capabilities = oci_alloc(o, sizeof(*p->capabilities));
	p->stdio = oci_alloc(o, sizeof(*p->stdio));
	if (!p->user || !p->capabilities || !p->stdio)
		return oci_oom(o);
	agent__user__init(p->user);
	agent__capabilities__init(p->capabilities);
	agent__stdio__init(p->stdio);
	o->process = p;
	r = oci_fields(o, path, v, process_fields);
	if (r < 0)
		return r;
	if (p->n_args == 0 || !*p->args[0])
		return oci_bad(o, *path ? path : "process", "has no args");
	if (!*p->cwd)
		return oci_bad(o, *path ? path : "process", "has no cwd");
	*ret = p;
	return 0;
}
