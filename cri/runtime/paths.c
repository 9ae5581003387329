/* Where things of a pod or container are (huskd.h). */
#include "base/util.h"
#include "cri/huskd.h"

char *path_pod(const struct huskd *d, const char *pod_id)
{
	return str_fmt("%s/pods/%s", d->config.state, pod_id);
}

char *path_container(const struct huskd *d, const char *id)
{
	return str_fmt("%s/containers/%s", d->config.state, id);
}

char *path_container_data(const struct huskd *d, const char *id)
{
	return str_fmt("%s/containers/%s", d->config.root, id);
}

char *path_exec(const struct huskd *d, const char *exec_id)
{
	return str_fmt("%s/exec/%s", d->config.state, exec_id);
}
