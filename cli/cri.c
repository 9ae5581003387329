#include "cli/cri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

const char *label_of(Cri__Container *const ct, const char *key)
{
	for (size_t i = 0; i < ct->n_labels; i++)
		if (str_eq(ct->labels[i]->key, key))
			return ct->labels[i]->value;
	return NULL;
}

const char *container_state_text(Cri__ContainerState s)
{
	switch (s) {
	case CRI__CONTAINER_STATE__CONTAINER_CREATED:
		return "created";
	case CRI__CONTAINER_STATE__CONTAINER_RUNNING:
		return "running";
	case CRI__CONTAINER_STATE__CONTAINER_EXITED:
		return "exited";
	default:
		return "unknown";
	}
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
	return *ret ? 0 : err_nomem(err);
}

int remove_run(struct cli *c, Cri__Container *const ct, struct err *err)
{
	cleanup_free char *log_dir = NULL;
	int r = remove_pod(c, ct->pod_sandbox_id, err);

	if (r == 0)
		r = run_log_dir(label_of(ct, LABEL_NAME), &log_dir, err);
	return r < 0 ? r : remove_tree(log_dir, err);
}
