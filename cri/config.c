#include "cri/config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <yaml.h>

#include "base/limits.h"
#include "base/process.h"
#include "base/util.h"

const char config_usage[] =
	"Usage: huskd [OPTION]...\n"
	"CRI server that runs every pod in its own virtual machine.\n"
	"\n"
	"  --config FILE        YAML file with the same settings; flags win\n"
	"  --root DIR           images, container disks, database (default /var/lib/husk)\n"
	"  --state DIR          sockets and bundles (default /run/husk)\n"
	"  --listen ADDRESS     unix socket to serve on (default unix:///run/husk/husk.sock)\n"
	"  --backend NAME       auto, kvm or qemu (default auto)\n"
	"  --kernel FILE        guest kernel (default ../share/husk/vmlinux beside the programs)\n"
	"  --log-level LEVEL    debug, info, warn or error (default info)\n"
	"  --log-format FORMAT  text or json (default text)\n"
	"  --help, --version\n"
	"\n"
	"SIGTERM and SIGINT end huskd; pods go on running and are found again by the next one.\n";

enum kind { STRING, PATH, ADDRESS, NUMBER, BOOL, LIST };

struct setting {
	const char *name; /* with a dot: in the mapping of that name, in the file only */
	enum kind kind;
	size_t offset;
	uint64_t min, max;	    /* NUMBER */
	const char *const *choices; /* STRING: one of these, NULL-terminated */
	bool flag;		    /* also a command line flag */
	bool paths;		    /* LIST: of these */
};

static const char *const backends[] = { "auto", "kvm", "qemu", NULL };
static const char *const levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const networks[] = { "none", "auto", "cni", NULL };
static const char *const formats[] = { "text", "json", NULL };

#define AT(field) offsetof(struct config, field)

static const struct setting settings[] = {
	{ "root", PATH, AT(root), .flag = true },
	{ "state", PATH, AT(state), .flag = true },
	{ "listen", ADDRESS, AT(listen), .flag = true },
	{ "backend", STRING, AT(backend), .choices = backends, .flag = true },
	{ "kernel", PATH, AT(kernel), .flag = true },
	{ "log-level", STRING, AT(log_level), .choices = levels, .flag = true },
	{ "log-format", STRING, AT(log_format), .choices = formats, .flag = true },
	{ "initramfs", PATH, AT(initramfs) },
	{ "shim", PATH, AT(shim) },
	{ "vmm", PATH, AT(vmm) },
	{ "image-worker", PATH, AT(image_worker) },
	{ "vcpus", NUMBER, AT(vcpus), 1, VM_VCPUS_MAX },
	{ "memory-mib", NUMBER, AT(memory_mib), VM_MEMORY_MIB_MIN, VM_MEMORY_MIB_MAX },
	{ "streaming.address", STRING, AT(stream_address) },
	{ "streaming.port", NUMBER, AT(stream_port), 0, UINT16_MAX },
	{ "network.mode", STRING, AT(network_mode), .choices = networks },
	{ "network.conf-dir", PATH, AT(network_conf_dir) },
	{ "network.bin-dirs", LIST, AT(network_bin_dirs), .paths = true },
	{ "images.keep-blobs", BOOL, AT(keep_blobs) },
	{ "images.pinned", LIST, AT(pinned) },
	{ "images.hosts-dir", PATH, AT(hosts_dir) },
	{ "images.layers-at-once", NUMBER, AT(layers_at_once), 1, CONFIG_LAYERS_AT_ONCE_MAX },
	{ "images.layers-in-all", NUMBER, AT(layers_in_all), 1, CONFIG_LAYERS_IN_ALL_MAX },
	{ "images.reserve-mib", NUMBER, AT(reserve_mib), 1, CONFIG_RESERVE_MIB_MAX },
	{ "images.worker-uid-first", NUMBER, AT(worker_uid_first), 1, CONFIG_UID_MAX },
	{ "images.worker-uids", NUMBER, AT(worker_uids), 64, CONFIG_WORKER_UIDS_MAX },
};

static void *at(struct config *c, const struct setting *s)
{
	return (char *)c + s->offset;
}

static char **string_at(struct config *c, const struct setting *s)
{
	return at(c, s);
}

/* Against the working directory of the caller; the file need not exist. */
static char *absolute(const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '/')
		return strdup(path);
	if (!getcwd(cwd, sizeof(cwd)))
		return NULL;
	return str_fmt("%s/%s", cwd, path);
}

static int set_string(struct config *c, const struct setting *s, const char *value, struct err *err)
{
	cleanup_free char *v = NULL;

	for (size_t i = 0; s->choices; i++) {
		if (!s->choices[i])
			return err_set(err, -EINVAL, "\"%s\" is not one of its values", value);
		if (str_eq(s->choices[i], value))
			break;
	}
	if (*value == '\0')
		return err_set(err, -EINVAL, "empty value");
	if (s->kind == PATH) {
		v = absolute(value);
	} else if (s->kind == ADDRESS) {
		const char *path = str_starts(value, "unix://") ? value + 7 : value;

		if (path[0] != '/')
			return err_set(err, -EINVAL, "\"%s\" is not unix:///PATH", value);
		v = str_fmt("unix://%s", path);
	} else {
		v = strdup(value);
	}
	if (!v)
		return err_nomem(err);
	free(*string_at(c, s));
	*string_at(c, s) = take_ptr(&v);
	return 0;
}

static int set_bool(struct config *c, const struct setting *s, const char *value, struct err *err)
{
	bool yes = str_eq(value, "true");

	if (!yes && !str_eq(value, "false"))
		return err_set(err, -EINVAL, "\"%s\" is neither true nor false", value);
	*(bool *)at(c, s) = yes;
	return 0;
}

/* Appends an entry. */
static int add_to_list(struct config *c, const struct setting *s, const char *value,
		       struct err *err)
{
	char ***list = at(c, s);
	size_t n = strv_len(*list);
	char **more;

	if (*value == '\0')
		return err_set(err, -EINVAL, "empty value");
	if (n == CONFIG_LIST_MAX)
		return err_set(err, -EINVAL, "more than %d entries", CONFIG_LIST_MAX);
	more = realloc(*list, (n + 2) * sizeof(*more));
	if (!more)
		return err_nomem(err);
	*list = more;
	more[n] = s->paths ? absolute(value) : strdup(value);
	more[n + 1] = NULL;
	return more[n] ? 0 : err_nomem(err);
}

static int set_value(struct config *c, const struct setting *s, const char *value, struct err *err)
{
	uint64_t n;
	int r;

	if (s->kind == BOOL)
		return set_bool(c, s, value, err);
	if (s->kind == LIST)
		return add_to_list(c, s, value, err);
	if (s->kind != NUMBER)
		return set_string(c, s, value, err);
	r = str_to_u64(value, s->min, s->max, &n);
	if (r < 0)
		return err_set(err, -EINVAL, "\"%s\" is not a number from %llu to %llu", value,
			       (unsigned long long)s->min, (unsigned long long)s->max);
	*(uint32_t *)at(c, s) = (uint32_t)n;
	return 0;
}

/* ---- YAML: a mapping of names to scalars, lists of scalars, and mappings of these ---- */

struct yaml_state {
	struct config *config;
	const char *name;	   /* of the file */
	const char *section;	   /* "images" while in that mapping, or waiting for it */
	const struct setting *key; /* waits for its value */
	bool seen[ARRAY_SIZE(settings)];
	unsigned depth; /* of mappings */
	bool in_list, done;
};

/* "_" may stand for "-". */
static bool same_name(const char *a, const char *b, size_t n)
{
	for (; n; n--, a++, b++)
		if (*a != *b && !(*a == '-' && *b == '_'))
			return false;
	return true;
}

static const struct setting *find_in(const char *section, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		const char *dot = strchr(settings[i].name, '.');
		const char *own = dot ? dot + 1 : settings[i].name;

		if (!dot != !section || strlen(own) != strlen(name))
			continue;
		if (section && (strlen(section) != (size_t)(dot - settings[i].name) ||
				!str_starts(settings[i].name, section)))
			continue;
		if (same_name(own, name, strlen(own)))
			return &settings[i];
	}
	return NULL;
}

/* The static text of a section's name, or NULL. */
static const char *find_section(const char *name)
{
	static const char *const sections[] = { "images", "network", "streaming" };

	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (str_eq(sections[i], name))
			return sections[i];
	return NULL;
}

static int yaml_key(struct yaml_state *y, const char *name, struct err *err)
{
	const char *section = y->depth == 1 ? find_section(name) : NULL;

	if (section) {
		y->section = section;
		return 0;
	}
	y->key = find_in(y->section, name);
	if (!y->key)
		return err_set(err, -EINVAL, "unknown setting \"%s%s%s\"",
			       y->section ? y->section : "", y->section ? "." : "", name);
	if (y->seen[y->key - settings])
		return err_set(err, -EINVAL, "\"%s\" is set twice", y->key->name);
	y->seen[y->key - settings] = true;
	return 0;
}

static int yaml_scalar(struct yaml_state *y, const yaml_event_t *e, struct err *err)
{
	const char *value = (const char *)e->data.scalar.value;
	int r;

	if (strlen(value) != e->data.scalar.length)
		return err_set(err, -EINVAL, "NUL byte");
	if (!y->key)
		return y->section && y->depth == 1
			       ? err_set(err, -EINVAL, "%s: expected settings below it", y->section)
			       : yaml_key(y, value, err);
	if ((y->key->kind == LIST) != y->in_list)
		return err_set(err, -EINVAL, "%s: expected a list", y->key->name);
	r = set_value(y->config, y->key, value, err);
	if (r < 0)
		(void)err_wrap(err, r, "%s", y->key->name);
	if (!y->in_list)
		y->key = NULL;
	return r;
}

/* -EPROTO without a text: the structure is wrong. */
static int yaml_step(struct yaml_state *y, const yaml_event_t *e, struct err *err)
{
	switch (e->type) {
	case YAML_STREAM_START_EVENT:
	case YAML_DOCUMENT_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		return 0;
	case YAML_STREAM_END_EVENT:
		y->done = true;
		return 0;
	case YAML_MAPPING_START_EVENT:
		/* the first, or the one that a section's name announced */
		if (y->key || y->in_list || y->depth != (y->section ? 1 : 0))
			return -EPROTO;
		y->depth++;
		return 0;
	case YAML_MAPPING_END_EVENT:
		y->depth--;
		y->section = NULL;
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		if (!y->key || y->key->kind != LIST || y->in_list)
			return -EPROTO;
		y->in_list = true;
		return 0;
	case YAML_SEQUENCE_END_EVENT:
		y->in_list = false;
		y->key = NULL;
		return 0;
	case YAML_SCALAR_EVENT:
		/* A file of comments only is one empty scalar to libyaml, or nothing. */
		if (!y->depth && e->data.scalar.length == 0)
			return 0;
		return y->depth ? yaml_scalar(y, e, err) : -EPROTO;
	default:
		return -EPROTO;
	}
}

static int yaml_event(struct yaml_state *y, const yaml_event_t *e, struct err *err)
{
	unsigned long line = (unsigned long)e->start_mark.line + 1;
	int r = yaml_step(y, e, err);

	if (r == -EPROTO)
		return err_set(err, -EINVAL, "%s:%lu: expected \"setting: value\" lines", y->name,
			       line);
	return r < 0 ? err_wrap(err, r, "%s:%lu", y->name, line) : 0;
}

int config_parse_yaml(struct config *c, const char *name, const char *text, size_t len,
		      struct err *err)
{
	struct yaml_state y = { .config = c, .name = name };
	yaml_parser_t parser;
	int r = 0;

	if (!yaml_parser_initialize(&parser))
		return err_nomem(err);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	while (r == 0 && !y.done) {
		yaml_event_t e;

		if (!yaml_parser_parse(&parser, &e)) {
			r = err_set(err, -EINVAL, "%s:%lu: %s", name,
				    (unsigned long)parser.problem_mark.line + 1,
				    parser.problem ? parser.problem : "not YAML");
			break;
		}
		r = yaml_event(&y, &e, err);
		yaml_event_delete(&e);
	}
	yaml_parser_delete(&parser);
	return r;
}

/* ---- flags ---- */

static int flags_walk(int argc, char **argv, struct config *c, bool only_config,
		      enum config_action *action, struct err *err)
{
	struct option options[ARRAY_SIZE(settings) + 4] = { 0 };
	int n = 0, opt, index;

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (settings[i].flag)
			options[n++] = (struct option){ settings[i].name, required_argument, NULL,
							(int)i + 256 };
	}
	options[n++] = (struct option){ "config", required_argument, NULL, 'c' };
	options[n++] = (struct option){ "help", no_argument, NULL, 'h' };
	options[n++] = (struct option){ "version", no_argument, NULL, 'v' };

	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+:h", options, &index)) != -1) {
		int r = 0;

		if (opt == 'h' || opt == 'v') {
			*action = opt == 'h' ? CONFIG_HELP : CONFIG_VERSION;
			return 0;
		} else if (opt == 'c' && only_config) {
			cleanup_free char *text = NULL;
			size_t len;

			r = read_file(optarg, CONFIG_FILE_MAX, &text, &len, err);
			if (r == 0)
				r = config_parse_yaml(c, optarg, text, len, err);
		} else if (opt >= 256 && !only_config) {
			r = set_value(c, &settings[opt - 256], optarg, err);
			if (r < 0)
				return err_wrap(err, r, "--%s", settings[opt - 256].name);
		} else if (opt == '?' || opt == ':') {
			return err_set(err, -EINVAL, "%s %s (see huskd --help)",
				       opt == '?' ? "unknown flag" : "no value for",
				       argv[optind - 1]);
		}
		if (r < 0)
			return r;
	}
	if (optind < argc)
		return err_set(err, -EINVAL, "unexpected argument \"%s\"", argv[optind]);
	return 0;
}

static int config_defaults(struct config *c, struct err *err)
{
	int r = program_path(NULL, "containerd-shim-husk-v2", &c->shim, err);

	if (r < 0)
		return r;
	c->root = strdup("/var/lib/husk");
	c->state = strdup("/run/husk");
	c->listen = strdup("unix:///run/husk/husk.sock");
	c->backend = strdup("auto");
	c->log_level = strdup("info");
	c->log_format = strdup("text");
	c->stream_address = strdup("127.0.0.1");
	c->network_mode = strdup("auto");
	c->network_conf_dir = strdup("/etc/cni/net.d");
	c->keep_blobs = true;
	c->hosts_dir = strdup("/etc/containerd/certs.d");
	c->layers_at_once = 3;
	c->layers_in_all = 8;
	if (!c->root || !c->state || !c->listen || !c->backend || !c->log_level || !c->log_format ||
	    !c->hosts_dir || !c->stream_address || !c->network_mode || !c->network_conf_dir)
		return err_nomem(err);
	return 0;
}

int config_load(int argc, char **argv, struct config *ret, enum config_action *action,
		struct err *err)
{
	struct config c = { 0 };
	enum config_action act = CONFIG_RUN;
	int r = config_defaults(&c, err);

	if (r == 0)
		r = flags_walk(argc, argv, &c, true, &act, err);
	if (r == 0 && act == CONFIG_RUN)
		r = flags_walk(argc, argv, &c, false, &act, err);
	if (r < 0) {
		config_fini(&c);
		return r;
	}
	*ret = c;
	*action = act;
	return 0;
}

void config_fini(struct config *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (settings[i].kind == LIST)
			strv_free(*(char ***)at(c, &settings[i]));
		else if (settings[i].kind != NUMBER && settings[i].kind != BOOL)
			free(*string_at(c, &settings[i]));
	}
	*c = (struct config){ 0 };
}
