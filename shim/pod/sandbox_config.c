#include "shim/pod/sandbox_config.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/spawn.h"
#include "base/util.h"

#define RESOLV_CONF_MAX (64 * KIB)

/* Ownership of malloc'd text moves into the arena. */
static int arena_text(struct pb_arena *a, char *text, char **ret)
{
	cleanup_free char *owned = text;
	size_t n;
	char *p;

	if (!owned)
		return -ENOMEM;
	n = strlen(owned) + 1;
	p = pb_arena_alloc(a, n);
	if (!p)
		return -ENOBUFS;
	memcpy(p, owned, n);
	*ret = p;
	return 0;
}

static int join(struct buf *b, const char *word, char *const *list, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = buf_printf(b, "%s%s", i ? " " : word, list[i]);
	return r == 0 && n ? buf_printf(b, "\n") : r;
}

static int resolv_conf(const Cri__DNSConfig *dns, char **ret)
{
	cleanup_buf struct buf b;
	int r = 0;

	buf_init(&b, RESOLV_CONF_MAX);
	if (!dns) {
		/* As CRI servers do: the host's own; without one the pod has an empty file. */
		if (read_file("/etc/resolv.conf", RESOLV_CONF_MAX, ret, NULL, NULL) < 0)
			*ret = strdup("\n");
		return *ret ? 0 : -ENOMEM;
	}
	r = join(&b, "search ", dns->searches, dns->n_searches);
	for (size_t i = 0; i < dns->n_servers && r == 0; i++)
		r = buf_printf(&b, "nameserver %s\n", dns->servers[i]);
	if (r == 0)
		r = join(&b, "options ", dns->options, dns->n_options);
	if (r == 0 && buf_len(&b) == 0)
		r = buf_printf(&b, "\n");
	if (r < 0)
		return r;
	*ret = buf_take_str(&b);
	return *ret ? 0 : -ENOMEM;
}

static char *hosts(const char *hostname)
{
	return str_fmt(
		"127.0.0.1\tlocalhost\n"
		"::1\tlocalhost ip6-localhost ip6-loopback\n"
		"%s%s%s",
		*hostname ? "127.0.1.1\t" : "", hostname, *hostname ? "\n" : "");
}

static int copy_sysctls(struct pb_arena *a, const Cri__LinuxPodSandboxConfig *lx,
			Agent__CreateSandboxRequest *req)
{
	Agent__CreateSandboxRequest__SysctlsEntry **list, *e;
	size_t n = lx ? lx->n_sysctls : 0;
	int r = 0;

	if (!n)
		return 0;
	list = pb_arena_alloc(a, n * sizeof(*list));
	if (!list)
		return -ENOBUFS;
	for (size_t i = 0; i < n && r == 0; i++) {
		e = pb_arena_alloc(a, sizeof(*e));
		if (!e)
			return -ENOBUFS;
		agent__create_sandbox_request__sysctls_entry__init(e);
		r = arena_text(a, strdup(lx->sysctls[i]->key), &e->key);
		if (r == 0)
			r = arena_text(a, strdup(lx->sysctls[i]->value), &e->value);
		list[i] = e;
	}
	req->sysctls = list;
	req->n_sysctls = n;
	return r;
}

int sandbox_config_request(struct pb_arena *a, const char *id, const Cri__PodSandboxConfig *cfg,
			   const char *hostname, Agent__CreateSandboxRequest **ret, struct err *err)
{
	Agent__CreateSandboxRequest *req = pb_arena_alloc(a, sizeof(*req));
	char *text = NULL;
	int r;

	if (!req)
		return err_nomem(err);
	agent__create_sandbox_request__init(req);
	r = arena_text(a, strdup(id), &req->id);
	if (r == 0)
		r = arena_text(a, strdup(hostname), &req->hostname);
	if (r == 0)
		r = arena_text(a, hosts(hostname), &req->hosts);
	if (r == 0)
		r = resolv_conf(cfg ? cfg->dns_config : NULL, &text);
	if (r == 0)
		r = arena_text(a, text, &req->resolv_conf);
	if (r == 0)
		r = copy_sysctls(a, cfg ? cfg->linux : NULL, req);
	if (r < 0)
		return err_errno(err, r, "configuration of the sandbox");
	*ret = req;
	return 0;
}

static uint64_t mib_of(int64_t bytes)
{
	return ((uint64_t)bytes + MIB - 1) / MIB;
}

void sandbox_config_size(const Shim__Options *opts, const Cri__PodSandboxConfig *cfg,
			 uint32_t *ret_vcpus, uint32_t *ret_memory_mib)
{
	const Cri__LinuxPodSandboxConfig *lx = cfg ? cfg->linux : NULL;
	const Cri__LinuxContainerResources *res = lx ? lx->resources : NULL;
	const Cri__LinuxContainerResources *over = lx ? lx->overhead : NULL;
	uint64_t mib = opts->memory_mib, vcpus = opts->vcpus;

	if (!mib)
		mib = SANDBOX_MEMORY_DEFAULT_MIB;
	if (!vcpus)
		vcpus = SANDBOX_VCPUS_DEFAULT;
	if (res && res->memory_limit_in_bytes > 0) {
		mib = mib_of(res->memory_limit_in_bytes);
		mib += over && over->memory_limit_in_bytes > 0 ? mib_of(over->memory_limit_in_bytes)
							       : SANDBOX_OVERHEAD_MIB;
	}
	if (res && res->cpu_quota > 0 && res->cpu_period > 0)
		vcpus = ((uint64_t)res->cpu_quota + (uint64_t)res->cpu_period - 1) /
			(uint64_t)res->cpu_period;
	*ret_memory_mib = (uint32_t)MIN_OF(MAX_OF(mib, SANDBOX_MEMORY_MIN_MIB), VM_MEMORY_MIB_MAX);
	*ret_vcpus = (uint32_t)MIN_OF(vcpus, VM_VCPUS_MAX);
}

bool sandbox_config_oom_score(const Cri__PodSandboxConfig *cfg, int *ret)
{
	const Cri__LinuxPodSandboxConfig *lx = cfg ? cfg->linux : NULL;
	const char *parent = lx ? lx->cgroup_parent : "";
	int64_t own = lx && lx->resources ? lx->resources->oom_score_adj : 0;

	*ret = OOM_SCORE_POD;
	if (own) {
		*ret = (int)MIN_OF(MAX_OF(own, OOM_SCORE_SHIM + 1), 1000);
		return true;
	}
	/* As kubelet weighs pods of these classes, at their highest. */
	if (strstr(parent, "besteffort"))
		*ret = 1000;
	else if (strstr(parent, "burstable"))
		*ret = 999;
	return false;
}
