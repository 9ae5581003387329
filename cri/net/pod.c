#include "cri/net/pod.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/record.h"

/* As kubelet has it: from a kilobit to a petabit per second. */
#define BANDWIDTH_MIN 1000u
#define BANDWIDTH_MAX 1000000000000000u
/* Bits; the most that the plug-in takes. Without a bound of its own a burst is not limited. */
#define BANDWIDTH_BURST 4294967295u

/* ---- CNI_ARGS ---- */

/* Pairs are separated by ; and the specification has no way to quote it. */
static bool arg_valid(const char *s)
{
	if (strlen(s) > NET_TEXT_MAX)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == ';' || *s == '=' || *s == 0x7f)
			return false;
	return true;
}

int net_pod_args(const char *id, const Cri__PodSandboxConfig *c, char **ret, struct err *err)
{
	const Cri__PodSandboxMetadata none = CRI__POD_SANDBOX_METADATA__INIT;
	const Cri__PodSandboxMetadata *m = c->metadata ? c->metadata : &none;

	if (!record_id_valid(id))
		return err_set(err, -EINVAL, "\"%.64s\" is no id for CNI", id);
	if (!arg_valid(m->namespace_) || !arg_valid(m->name) || !arg_valid(m->uid))
		return err_set(err, -EINVAL,
			       "the pod's name, namespace or uid cannot be told to plug-ins");
	*ret =
		str_fmt("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;"
			"K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
			m->namespace_, m->name, id, m->uid);
	return *ret ? 0 : err_nomem(err);
}

/* ---- quantities ---- */

struct suffix {
	const char *text;
	uint64_t mul, div;
};

static const struct suffix suffixes[] = {
	{ "", 1, 1 },
	{ "n", 1, 1000000000 },
	{ "u", 1, 1000000 },
	{ "m", 1, 1000 },
	{ "k", 1000, 1 },
	{ "M", 1000000, 1 },
	{ "G", 1000000000, 1 },
	{ "T", 1000000000000, 1 },
	{ "P", 1000000000000000, 1 },
	{ "E", 1000000000000000000, 1 },
	{ "Ki", 1ull << 10, 1 },
	{ "Mi", 1ull << 20, 1 },
	{ "Gi", 1ull << 30, 1 },
	{ "Ti", 1ull << 40, 1 },
	{ "Pi", 1ull << 50, 1 },
	{ "Ei", 1ull << 60, 1 },
};

static int parse_suffix(const char *s, struct suffix *ret)
{
	const char *digits = s[0] && s[1] == '+' ? s + 2 : s + 1;
	int64_t exp;

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		if (str_eq(suffixes[i].text, s)) {
			*ret = suffixes[i];
			return 0;
		}
	}
	if ((s[0] != 'e' && s[0] != 'E') || *digits == '+' || str_to_i64(digits, -18, 18, &exp) < 0)
		return -EINVAL;
	*ret = (struct suffix){ NULL, 1, 1 };
	for (; exp > 0; exp--)
		ret->mul *= 10;
	for (; exp < 0; exp++)
		ret->div *= 10;
	return 0;
}

int net_quantity(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	unsigned __int128 value = 0, div = 1;
	bool dot = false;
	const char *s = text;
	struct suffix suffix;
	unsigned digits = 0;

	for (s += *s == '+'; isdigit((unsigned char)*s) || (*s == '.' && !dot); s++) {
		if (*s == '.') {
			dot = true;
			continue;
		}
		if (++digits > 18)
			return -EINVAL;
		value = value * 10 + (unsigned)(*s - '0');
		div *= dot ? 10 : 1;
	}
	if (digits == 0 || parse_suffix(s, &suffix) < 0)
		return -EINVAL;
	/* Less than 10^18 * 2^60, and 10^18 * 10^18: both fit. */
	value *= suffix.mul;
	div *= suffix.div;
	value = (value + div - 1) / div;
	if (value < min || value > max)
		return -EINVAL;
	*ret = (uint64_t)value;
	return 0;
}

/* ---- capabilities ---- */

static int add_port(json_t *list, const Cri__PortMapping *p, struct err *err)
{
	static const char *const protocols[] = { "tcp", "udp", "sctp" }; /* CRI's numbers */
	uint8_t address[16];
	json_t *j;

	if (p->host_port == 0)
		return 0;
	if (p->host_port < 0 || p->host_port > 65535 || p->container_port < 1 ||
	    p->container_port > 65535)
		return err_set(err, -EINVAL, "port mapping %d to %d", p->host_port,
			       p->container_port);
	if ((unsigned)p->protocol >= ARRAY_SIZE(protocols))
		return err_set(err, -EINVAL, "port mapping %d: protocol %d", p->host_port,
			       (int)p->protocol);
	if (*p->host_ip && inet_pton(AF_INET, p->host_ip, address) != 1 &&
	    inet_pton(AF_INET6, p->host_ip, address) != 1)
		return err_set(err, -EINVAL, "port mapping %d: host IP \"%.64s\"", p->host_port,
			       p->host_ip);
	j = json_pack("{s:i, s:i, s:s, s:s}", "hostPort", p->host_port, "containerPort",
		      p->container_port, "protocol", protocols[p->protocol], "hostIP", p->host_ip);
	return json_array_append_new(list, j) < 0 ? err_nomem(err) : 0;
}

static int add_ports(json_t *caps, const Cri__PodSandboxConfig *c, struct err *err)
{
	cleanup_json json_t *list = json_array();
	int r = list ? 0 : err_nomem(err);

	if (r == 0 && c->n_port_mappings > NET_PORTS_MAX)
		r = err_set(err, -E2BIG, "%zu port mappings, at most %u", c->n_port_mappings,
			    NET_PORTS_MAX);
	for (size_t i = 0; i < c->n_port_mappings && r == 0; i++)
		r = add_port(list, c->port_mappings[i], err);
	if (r == 0 && json_array_size(list) > 0 && json_object_set(caps, "portMappings", list) < 0)
		r = err_nomem(err);
	return r;
}

static int add_rate(json_t **bw, const Cri__PodSandboxConfig__AnnotationsEntry *a, const char *rate,
		    const char *burst, struct err *err)
{
	uint64_t n;

	if (net_quantity(a->value, BANDWIDTH_MIN, BANDWIDTH_MAX, &n) < 0)
		return err_set(err, -EINVAL,
			       "annotation %s: \"%.32s\" is no rate from 1k to 1P (bits a second)",
			       a->key, a->value);
	if (!*bw)
		*bw = json_object();
	if (json_object_set_new(*bw, rate, json_integer((json_int_t)n)) < 0 ||
	    json_object_set_new(*bw, burst, json_integer(BANDWIDTH_BURST)) < 0)
		return err_nomem(err);
	return 0;
}

static int add_annotations(json_t *caps, const Cri__PodSandboxConfig *c, struct err *err)
{
	cleanup_json json_t *all = json_object(), *bw = NULL;
	int r = all ? 0 : err_nomem(err);

	for (size_t i = 0; i < c->n_annotations && r == 0; i++) {
		const Cri__PodSandboxConfig__AnnotationsEntry *a = c->annotations[i];

		/* protobuf-c does not look whether they are UTF-8, and JSON has nothing else. */
		if (!utf8_valid(a->key) || !utf8_valid(a->value))
			r = err_set(err, -EINVAL, "an annotation is not UTF-8");
		else if (json_object_set_new(all, a->key, json_string(a->value)) < 0)
			r = err_nomem(err);
		else if (str_eq(a->key, "kubernetes.io/ingress-bandwidth"))
			r = add_rate(&bw, a, "ingressRate", "ingressBurst", err);
		else if (str_eq(a->key, "kubernetes.io/egress-bandwidth"))
			r = add_rate(&bw, a, "egressRate", "egressBurst", err);
	}
	if (r == 0 && c->n_annotations > 0 &&
	    json_object_set(caps, "io.kubernetes.cri.pod-annotations", all) < 0)
		r = err_nomem(err);
	if (r == 0 && bw && json_object_set(caps, "bandwidth", bw) < 0)
		r = err_nomem(err);
	return r;
}

/* Nothing where the list is empty. */
static int add_strings(json_t *to, const char *key, char *const *v, size_t n, struct err *err)
{
	cleanup_json json_t *list = json_array();
	int r = list ? 0 : err_nomem(err);

	for (size_t i = 0; i < n && r == 0; i++) {
		if (!utf8_valid(v[i]))
			r = err_set(err, -EINVAL, "%s: not UTF-8", key);
		else if (json_array_append_new(list, json_string(v[i])) < 0)
			r = err_nomem(err);
	}
	if (r == 0 && n > 0 && json_object_set(to, key, list) < 0)
		r = err_nomem(err);
	return r;
}

static int add_dns(json_t *caps, const Cri__DNSConfig *d, struct err *err)
{
	cleanup_json json_t *dns = json_object();
	int r = dns ? 0 : err_nomem(err);

	if (r == 0)
		r = add_strings(dns, "servers", d->servers, d->n_servers, err);
	if (r == 0)
		r = add_strings(dns, "searches", d->searches, d->n_searches, err);
	if (r == 0)
		r = add_strings(dns, "options", d->options, d->n_options, err);
	if (r == 0 && json_object_size(dns) > 0 && json_object_set(caps, "dns", dns) < 0)
		r = err_nomem(err);
	return r;
}

static int add_cgroup(json_t *caps, const char *path, struct err *err)
{
	if (!utf8_valid(path))
		return err_set(err, -EINVAL, "cgroup_parent: not UTF-8");
	return json_object_set_new(caps, "cgroupPath", json_string(path)) < 0 ? err_nomem(err) : 0;
}

int net_pod_caps(const Cri__PodSandboxConfig *c, json_t **ret, struct err *err)
{
	cleanup_json json_t *caps = json_object();
	int r = caps ? add_ports(caps, c, err) : err_nomem(err);

	if (r == 0)
		r = add_annotations(caps, c, err);
	if (r == 0 && c->dns_config)
		r = add_dns(caps, c->dns_config, err);
	if (r == 0 && c->linux && *c->linux->cgroup_parent)
		r = add_cgroup(caps, c->linux->cgroup_parent, err);
	if (r == 0)
		*ret = take_ptr(&caps);
	return r;
}
