/* Helpers over CRI that several commands use. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

int with_hint(struct err *err, int code, const char *hint)
{
	struct err before = *err;

	return err_set(err, code, "%s; %s", err_text(&before), hint);
}

const char *label_of(Cri__Container *const ct, const char *key)
{
	for (size_t i = 0; i < ct->n_labels; i++)
		if (str_eq(ct->labels[i]->key, key))
			return ct->labels[i]->value;
	return NULL;
}

void free_containers(Cri__ListContainersResponse **list)
{
	if (*list)
		cri__list_containers_response__free_unpacked(*list, NULL);
	*list = NULL;
}

int find_container(struct cli *c, const char *ref, Cri__ListContainersResponse **ret_list,
		   Cri__Container **ret, struct err *err)
{
	Cri__ListContainersRequest req = CRI__LIST_CONTAINERS_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	Cri__Container *found = NULL;
	int r;

	if (str_empty(ref))
		return err_set(err, -EINVAL, "the name of a container is missing");
	r = runtime_call(c, "ListContainers", &req, CALL_TIMEOUT_MS, &list, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list->n_containers; i++) {
		Cri__Container *ct = list->containers[i];

		if (str_eq(label_of(ct, LABEL_NAME), ref) || str_eq(ct->id, ref)) {
			found = ct;
			break;
		}
		if (!str_starts(ct->id, ref))
			continue;
		if (found)
			return err_set(err, -EEXIST,
				       "'%s' is the beginning of more than one container id", ref);
		found = ct;
	}
	if (!found)
		return err_set(err, -ENOENT, "there is no container '%s'; 'husk ps -a' lists them",
			       ref);
	*ret = found;
	*ret_list = take_ptr(&list);
	return 0;
}

int stop_container(struct cli *c, const char *id, int64_t grace_s, struct err *err)
{
	Cri__StopContainerRequest req = CRI__STOP_CONTAINER_REQUEST__INIT;

	req.container_id = (char *)id;
	req.timeout = grace_s;
	return runtime_call(c, "StopContainer", &req, POD_TIMEOUT_MS + (uint64_t)grace_s * 1000,
			    NULL, err);
}

int remove_pod(struct cli *c, const char *pod_id, struct err *err)
{
	Cri__StopPodSandboxRequest stop = CRI__STOP_POD_SANDBOX_REQUEST__INIT;
	Cri__RemovePodSandboxRequest remove = CRI__REMOVE_POD_SANDBOX_REQUEST__INIT;
	int r;

	stop.pod_sandbox_id = (char *)pod_id;
	remove.pod_sandbox_id = (char *)pod_id;
	r = runtime_call(c, "StopPodSandbox", &stop, POD_TIMEOUT_MS, NULL, err);
	if (r < 0)
		return r;
	return runtime_call(c, "RemovePodSandbox", &remove, POD_TIMEOUT_MS, NULL, err);
}

/* Names are used in paths and host names. */
static int check_name(const char *name, struct err *err)
{
	size_t n =
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

	if (n == 0 || n > 63 || name[n] || *name == '-' || *name == '.')
		return err_set(err, -EINVAL,
			       "name '%s': up to 63 letters, digits, '_', '.' and '-', "
			       "beginning with a letter or digit",
			       name);
	return 0;
}

int run_log_dir(const char *name, char **ret, struct err *err)
{
	const char *dir = getenv("HUSK_LOG_DIR");
	int r = check_name(name, err);

	if (r < 0)
		return r;
	*ret = str_fmt("%s/%s", str_empty(dir) ? DEFAULT_LOG_DIR : dir, name);
	return *ret ? 0 : err_errno(err, -ENOMEM, "log directory");
}

const char *human_age(int64_t then_ns, char buf[32])
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = { { 365 * 86400, "year" }, { 30 * 86400, "month" }, { 7 * 86400, "week" },
		      { 86400, "day" },	       { 3600, "hour" },	{ 60, "minute" },
		      { 1, "second" } };
	int64_t s = (now_real_ns() - then_ns) / (int64_t)NS_PER_S, n;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		n = s / units[i].seconds;
		if (n < 1)
			continue;
		(void)snprintf(buf, 32, "%lld %s%s ago", (long long)n, units[i].name,
			       n == 1 ? "" : "s");
		return buf;
	}
	(void)snprintf(buf, 32, "just now");
	return buf;
}

const char *human_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1000 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1000;
		u++;
	}
	(void)snprintf(buf, 32, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return buf;
}
