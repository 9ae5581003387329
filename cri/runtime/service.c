/* The method table of runtime.v1.RuntimeService. What is not in it answers UNIMPLEMENTED. */
#include "cri/huskd.h"

const struct rpc_method runtime_methods[] = {
	{ "Version", status_handle_version, false },
	{ "Status", status_handle_status, false },
	{ "RuntimeConfig", status_handle_runtime_config, false },
	{ "UpdateRuntimeConfig", status_handle_update_runtime_config, false },
	{ "RunPodSandbox", pod_handle_run, false },
	{ "StopPodSandbox", pod_handle_stop, false },
	{ "RemovePodSandbox", pod_handle_remove, false },
	{ "PodSandboxStatus", status_handle_pod, false },
	{ "ListPodSandbox", status_handle_list_pods, false },
	{ "CreateContainer", container_handle_create, false },
	{ "StartContainer", container_handle_start, false },
	{ "StopContainer", container_handle_stop, false },
	{ "RemoveContainer", container_handle_remove, false },
	{ "ContainerStatus", status_handle_container, false },
	{ "ListContainers", status_handle_list_containers, false },
	{ "ExecSync", exec_handle_sync, false },
	{ "ReopenContainerLog", container_handle_reopen_log, false },
	{ NULL, NULL, false },
};
