/*
 * cri/net without huskd, for tests that kill it in the middle:
 *
 *	net_driver DIR CONF_DIR BIN_DIR NETNS_DIR COMMAND
 *
 *	add ID		prints the addresses, leaves the pod
 *	del ID, check ID
 *	find ID		prints the addresses of an earlier add
 *	recover		DEL of all that is there; 0 = all went
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "cri/net/net.h"

#define RECOVER_S 30

static bool over;
static int result;

static void done(int code, const struct err *err)
{
	if (code < 0)
		(void)fprintf(stderr, "net_driver: %s\n", err_text(err));
	result = code;
	over = true;
}

static void net_driver_on_add(void *arg, int code, const struct net_result *res,
			      const struct err *err)
{
	done(code, err);
}

static void net_driver_on_end(void *arg, int code, const struct err *err)
{
	done(code, err);
}

static bool net_driver_keep(void *arg, const char *id)
{
	return false;
}

static int print_addresses(const struct net *n, const char *id)
{
	struct net_addr a[8];
	struct net_view v;
	int r = net_find(n, id, &v);
	size_t k = r == 0 ? net_addresses(&v, a, ARRAY_SIZE(a)) : 0;

	for (size_t i = 0; i < k; i++) {
		char text[46];

		net_addr_format(&a[i], text);
		(void)printf("%s%s", i ? " " : "", text);
	}
	if (r == 0)
		(void)printf("\n");
	return r;
}

static bool records(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool any = false;

	while (d && (e = readdir(d)))
		any = any || str_ends(e->d_name, ".json");
	if (d)
		(void)closedir(d);
	return any;
}

static int recover(struct net *n, struct loop *l, const char *dir)
{
	uint64_t end = now_mono_ns() + RECOVER_S * NS_PER_S;

	net_reap(n, net_driver_keep, NULL);
	while (records(dir) && now_mono_ns() < end)
		if (loop_once(l, 100) < 0)
			return -EIO;
	return records(dir) ? -ETIMEDOUT : 0;
}

static int start(struct net *n, const char *verb, const char *id, struct err *err)
{
	Cri__PodSandboxMetadata meta = CRI__POD_SANDBOX_METADATA__INIT;
	Cri__PodSandboxConfig pod = CRI__POD_SANDBOX_CONFIG__INIT;
	Cri__PortMapping port = CRI__PORT_MAPPING__INIT, *ports[] = { &port };

	meta.name = (char *)"web";
	meta.namespace_ = (char *)"default";
	meta.uid = (char *)"u";
	port.host_port = 8080;
	port.container_port = 80;
	pod.metadata = &meta;
	pod.n_port_mappings = 1;
	pod.port_mappings = ports;
	if (str_eq(verb, "add"))
		return net_add(n, id, &pod, net_driver_on_add, NULL, err);
	if (str_eq(verb, "check"))
		return net_check(n, id, net_driver_on_end, NULL, err);
	if (str_eq(verb, "del"))
		return net_del(n, id, net_driver_on_end, NULL, err);
	return err_set(err, -EINVAL, "what is \"%s\"?", verb);
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	struct loop *l = NULL;
	struct net *n = NULL;
	int r;

	if (argc < 6)
		return 2;
	log_init("net_driver", STDERR_FILENO, LOG_WARN, false);
	char *bins[] = { argv[3], NULL };
	const char *verb = argv[5], *id = argc > 6 ? argv[6] : "";

	r = loop_new(&l, &err);
	struct net_options o = { .loop = l,
				 .dir = argv[1],
				 .conf_dir = argv[2],
				 .bin_dirs = bins,
				 .netns_dir = argv[4] };
	if (r == 0)
		r = net_open(&o, &n, &err);
	if (r == 0 && str_eq(verb, "recover")) {
		r = recover(n, l, argv[1]);
	} else if (r == 0 && str_eq(verb, "find")) {
		r = print_addresses(n, id);
	} else if (r == 0) {
		r = start(n, verb, id, &err);
		if (r < 0)
			(void)fprintf(stderr, "net_driver: %s\n", err_text(&err));
		while (r == 0 && !over)
			if (loop_once(l, -1) < 0)
				return 1;
		r = r < 0 ? r : result;
		if (r == 0 && str_eq(verb, "add"))
			r = print_addresses(n, id);
	}
	net_close(n);
	loop_free(l);
	return r < 0 ? 1 : 0;
}
