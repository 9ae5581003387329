#include "cri/net/result.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/util.h"
#include "cri/net/json.h"

/* ---- addresses ---- */

static int addr_bits(const struct net_addr *a)
{
	return a->family == AF_INET ? 32 : 128;
}

static int parse_addr(const char *text, struct net_addr *ret)
{
	struct net_addr a = { 0 };

	if (!text)
		return -EPROTO;
	if (inet_pton(AF_INET, text, a.bytes) == 1)
		a.family = AF_INET;
	else if (inet_pton(AF_INET6, text, a.bytes) == 1)
		a.family = AF_INET6;
	else
		return -EPROTO;
	/* One address, two families: nothing good comes of it. */
	if (a.family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(void *)a.bytes))
		return -EPROTO;
	a.prefix = (uint8_t)addr_bits(&a);
	*ret = a;
	return 0;
}

/* ADDRESS/LENGTH */
static int parse_cidr(const char *text, struct net_addr *ret)
{
	const char *slash = text ? strchr(text, '/') : NULL;
	char address[INET6_ADDRSTRLEN];
	struct net_addr a;
	uint64_t prefix;
	int r;

	if (!slash || (size_t)(slash - text) >= sizeof(address) || strlen(slash + 1) > 3)
		return -EPROTO;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	r = parse_addr(address, &a);
	if (r == 0)
		r = str_to_u64(slash + 1, 0, (uint64_t)addr_bits(&a), &prefix);
	if (r < 0)
		return -EPROTO;
	a.prefix = (uint8_t)prefix;
	*ret = a;
	return 0;
}

/* One that an interface can have: not unspecified, not multicast, not loopback. */
static bool addr_usable(const struct net_addr *a)
{
	static const uint8_t zero[16], loop6[16] = { [15] = 1 };
	const uint8_t *b = a->bytes;

	if (a->family == AF_INET)
		return b[0] != 0 && b[0] != 127 && b[0] < 224;
	return memcmp(b, zero, 16) != 0 && memcmp(b, loop6, 16) != 0 && b[0] != 0xff;
}

void net_addr_format(const struct net_addr *a, char out[46])
{
	if (a->family == 0 || !inet_ntop(a->family, a->bytes, out, 46))
		out[0] = '\0';
}

/* ---- numbers and lists ---- */

static int parse_u32(const json_t *j, const char *key, uint32_t max, uint32_t *ret, bool *has)
{
	json_t *v = net_json_get(j, key);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > max)
		return -EPROTO;
	*ret = (uint32_t)json_integer_value(v);
	if (has)
		*has = true;
	return 0;
}

/* The list `key`; absent and null are empty. */
static int list_of(const json_t *j, const char *key, size_t max, json_t **ret, struct err *err)
{
	json_t *v = net_json_get(j, key);

	if (v && !json_is_array(v))
		return err_set(err, -EPROTO, "%s is no list", key);
	if (json_array_size(v) > max)
		return err_set(err, -EFBIG, "%s: %zu entries, at most %zu", key, json_array_size(v),
			       max);
	*ret = v;
	return 0;
}

/* ---- interfaces ---- */

static bool ifname_valid(const char *s)
{
	if (str_empty(s) || strlen(s) >= NET_IFNAME_LEN || str_eq(s, ".") || str_eq(s, ".."))
		return false;
	for (; *s; s++)
		if (!isgraph((unsigned char)*s) || *s == '/' || *s == ':')
			return false;
	return true;
}

static int parse_mac(const char *s, uint8_t mac[6])
{
	for (int i = 0; i < 6; i++) {
		if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]))
			return -EPROTO;
		mac[i] = (uint8_t)strtoul((const char[]){ s[0], s[1], '\0' }, NULL, 16);
		s += 2;
		if (i < 5 && *s++ != ':')
			return -EPROTO;
	}
	return *s ? -EPROTO : 0;
}

static int parse_interface(const json_t *j, struct net_interface *ret, struct err *err)
{
	const char *name = net_json_str(j, "name"), *mac = net_json_str(j, "mac");
	const char *sandbox = net_json_str(j, "sandbox");
	struct net_interface n = { .in_pod = !str_empty(sandbox) };

	if (!ifname_valid(name))
		return err_set(err, -EPROTO, "no name that an interface can have");
	memcpy(n.name, name, strlen(name) + 1);
	if (!str_empty(mac)) {
		n.has_mac = parse_mac(mac, n.mac) == 0;
		/* Outside of the pod there may be others than Ethernet. */
		if (!n.has_mac && n.in_pod)
			return err_set(err, -EPROTO, "\"%.32s\" is no MAC address", mac);
		if (n.has_mac && n.in_pod && (n.mac[0] & 1))
			return err_set(err, -EPROTO, "\"%.32s\" is the address of a group", mac);
	}
	if (parse_u32(j, "mtu", 65535 + 14, &n.mtu, NULL) < 0)
		return err_set(err, -EPROTO, "mtu is no number that can be");
	*ret = n;
	return 0;
}

/* ---- addresses of interfaces ---- */

static int parse_ip(const json_t *j, enum cni_version v, const struct net_result *res,
		    struct net_ip *ret, struct err *err)
{
	const char *text = net_json_str(j, "address"), *version = net_json_str(j, "version");
	json_t *gateway = net_json_get(j, "gateway"), *index = net_json_get(j, "interface");
	struct net_ip ip = { .interface = -1 };

	if (parse_cidr(text, &ip.address) < 0 || ip.address.prefix == 0)
		return err_set(err, -EPROTO, "\"%.64s\" is no address with a prefix length",
			       text ? text : "");
	if (!addr_usable(&ip.address))
		return err_set(err, -EPROTO, "\"%.64s\" cannot be an interface's", text);
	if ((version || v < CNI_1_0_0) &&
	    !str_eq(version, ip.address.family == AF_INET ? "4" : "6"))
		return err_set(err, -EPROTO, "%.64s is not of version \"%.8s\"", text,
			       version ? version : "");
	if (gateway && !str_eq(json_string_value(gateway), "") &&
	    (parse_addr(json_string_value(gateway), &ip.gateway) < 0 ||
	     ip.gateway.family != ip.address.family || !addr_usable(&ip.gateway)))
		return err_set(err, -EPROTO, "\"%.64s\" is no gateway of %.64s",
			       json_is_string(gateway) ? json_string_value(gateway) : "", text);
	if (index) {
		if (!json_is_integer(index) || json_integer_value(index) < -1 ||
		    json_integer_value(index) >= (json_int_t)res->n_interfaces)
			return err_set(err, -EPROTO, "%.64s is on an interface that is not there",
				       text);
		ip.interface = (int)json_integer_value(index);
	}
	*ret = ip;
	return 0;
}

/* ---- routes ---- */

static int parse_route(const json_t *j, struct net_route *ret, struct err *err)
{
	const char *dst = net_json_str(j, "dst");
	json_t *gw = net_json_get(j, "gw");
	struct net_route n = { 0 };
	uint32_t scope = 0;

	if (parse_cidr(dst, &n.dst) < 0)
		return err_set(err, -EPROTO, "\"%.64s\" is no range of addresses", dst ? dst : "");
	if (gw && !str_eq(json_string_value(gw), "") &&
	    (parse_addr(json_string_value(gw), &n.gw) < 0 || n.gw.family != n.dst.family ||
	     !addr_usable(&n.gw)))
		return err_set(err, -EPROTO, "\"%.64s\" is no gateway for %.64s",
			       json_is_string(gw) ? json_string_value(gw) : "", dst);
	if (parse_u32(j, "mtu", 65535, &n.mtu, NULL) < 0 ||
	    parse_u32(j, "advmss", 65535, &n.advmss, NULL) < 0 ||
	    parse_u32(j, "priority", UINT32_MAX, &n.priority, NULL) < 0 ||
	    parse_u32(j, "table", UINT32_MAX, &n.table, &n.has_table) < 0 ||
	    parse_u32(j, "scope", 255, &scope, &n.has_scope) < 0)
		return err_set(err, -EPROTO, "%.64s: a number that cannot be", dst);
	n.scope = (uint8_t)scope;
	*ret = n;
	return 0;
}

/* ---- DNS ---- */

/* Words of resolv.conf. */
static bool dns_word(const char *s)
{
	if (str_empty(s) || strlen(s) > NET_DNS_LEN_MAX)
		return false;
	for (; *s; s++)
		if (!isgraph((unsigned char)*s))
			return false;
	return true;
}

static int parse_words(const json_t *dns, const char *key, char ***ret, struct err *err)
{
	cleanup_strv char **v = NULL;
	json_t *list, *w;
	size_t i;
	int r = list_of(dns, key, NET_DNS_MAX, &list, err);

	if (r < 0 || json_array_size(list) == 0)
		return r;
	v = calloc(json_array_size(list) + 1, sizeof(*v));
	if (!v)
		return err_nomem(err);
	json_array_foreach (list, i, w) {
		struct net_addr a;

		if (!dns_word(json_string_value(w)))
			return err_set(err, -EPROTO, "%s %zu is no word", key, i + 1);
		if (str_eq(key, "nameservers") && parse_addr(json_string_value(w), &a) < 0)
			return err_set(err, -EPROTO, "nameserver \"%.64s\" is no address",
				       json_string_value(w));
		v[i] = strdup(json_string_value(w));
		if (!v[i])
			return err_nomem(err);
	}
	*ret = take_ptr(&v);
	return 0;
}

static int parse_dns(const json_t *j, struct net_result *res, struct err *err)
{
	json_t *dns = net_json_get(j, "dns");
	const char *domain = net_json_str(dns, "domain");
	int r = 0;

	if (dns && !json_is_object(dns))
		r = err_set(err, -EPROTO, "no object");
	if (r == 0)
		r = parse_words(dns, "nameservers", &res->nameservers, err);
	if (r == 0)
		r = parse_words(dns, "search", &res->search, err);
	if (r == 0)
		r = parse_words(dns, "options", &res->options, err);
	if (r == 0 && !str_empty(domain)) {
		if (!dns_word(domain))
			r = err_set(err, -EPROTO, "domain is no word");
		else if (!(res->domain = strdup(domain)))
			r = err_nomem(err);
	}
	return r < 0 ? err_wrap(err, r, "dns") : 0;
}

/* ---- all of it ---- */

static int parse_version(const json_t *j, enum cni_version *ret, struct err *err)
{
	const char *text = net_json_str(j, "cniVersion");
	int v = cni_version_parse(text);

	if (!text)
		return err_set(err, -EPROTO, "no cniVersion");
	if (v < 0)
		return err_set(err, -ENOTSUP,
			       "cniVersion \"%.32s\" is not known; Husk speaks " CNI_SUPPORTED,
			       text);
	*ret = (enum cni_version)v;
	return 0;
}

static int parse_lists(const json_t *j, enum cni_version v, struct net_result *res, struct err *err)
{
	json_t *interfaces, *ips, *routes, *e;
	size_t i;
	int r = list_of(j, "interfaces", NET_INTERFACES_MAX, &interfaces, err);

	if (r == 0)
		r = list_of(j, "ips", NET_ADDRESSES_MAX, &ips, err);
	if (r == 0)
		r = list_of(j, "routes", NET_ROUTES_MAX, &routes, err);
	if (r < 0)
		return r;
	/* One more: calloc(0) may be NULL. */
	res->interfaces = calloc(json_array_size(interfaces) + 1, sizeof(*res->interfaces));
	res->ips = calloc(json_array_size(ips) + 1, sizeof(*res->ips));
	res->routes = calloc(json_array_size(routes) + 1, sizeof(*res->routes));
	if (!res->interfaces || !res->ips || !res->routes)
		return err_nomem(err);
	json_array_foreach (interfaces, i, e) {
		r = parse_interface(e, &res->interfaces[i], err);
		if (r < 0)
			return err_wrap(err, r, "interface %zu", i + 1);
		res->n_interfaces++;
	}
	json_array_foreach (ips, i, e) {
		r = parse_ip(e, v, res, &res->ips[i], err);
		if (r < 0)
			return err_wrap(err, r, "address %zu", i + 1);
		res->n_ips++;
	}
	json_array_foreach (routes, i, e) {
		r = parse_route(e, &res->routes[i], err);
		if (r < 0)
			return err_wrap(err, r, "route %zu", i + 1);
		res->n_routes++;
	}
	return 0;
}

int net_result_parse(const json_t *j, struct net_result **ret, struct err *err)
{
	cleanup_net_result struct net_result *res = calloc(1, sizeof(*res));
	enum cni_version v;
	int r;

	if (!res)
		return err_nomem(err);
	r = parse_version(j, &v, err);
	if (r == 0)
		r = parse_lists(j, v, res, err);
	if (r == 0)
		r = parse_dns(j, res, err);
	if (r == 0)
		*ret = take_ptr(&res);
	return r;
}

void net_result_free(struct net_result *r)
{
	if (!r)
		return;
	free(r->interfaces);
	free(r->ips);
	free(r->routes);
	strv_free(r->nameservers);
	strv_free(r->search);
	strv_free(r->options);
	free(r->domain);
	free(r);
}

void net_result_freep(struct net_result **r)
{
	net_result_free(*r);
	*r = NULL;
}

/* Until 0.4.0 each address says its version, from 1.0.0 on none does; the rest is the same. */
int net_result_convert(json_t *j, enum cni_version to, struct err *err)
{
	int r = json_object_set_new(j, "cniVersion", json_string(cni_version_name(to)));
	json_t *ips = json_object_get(j, "ips"), *ip;
	size_t i;

	json_array_foreach (ips, i, ip) {
		const char *address = net_json_str(ip, "address");

		if (to >= CNI_1_0_0)
			(void)json_object_del(ip, "version");
		else
			r |= json_object_set_new(
				ip, "version",
				json_string(address && strchr(address, ':') ? "6" : "4"));
	}
	return r < 0 ? err_nomem(err) : 0;
}
