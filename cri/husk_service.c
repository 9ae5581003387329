#include "cri/husk_service.h"

#include "cri/images/husk_archive.h"
#include "cri/images/husk_images.h"
#include "cri/images/husk_pull.h"
#include "cri/images/husk_push.h"
#include "cri/images/husk_verify.h"
#include "cri/runtime/husk_runtime.h"

const struct rpc_method husk_service_methods[] = {
	{ "PodTimes", husk_runtime_handle_times },
	{ "WaitContainer", husk_runtime_handle_wait },
	{ "ListImages", husk_images_handle_list },
	{ "InspectImage", husk_images_handle_inspect },
	{ "TagImage", husk_images_handle_tag },
	{ "RemoveImage", husk_images_handle_remove },
	{ "DiskUsage", husk_images_handle_usage },
	{ "Prune", husk_images_handle_prune },
	{ "PullImage", husk_pull_handle, .streams = true },
	{ "PushImage", husk_push_handle, .streams = true },
	{ "CheckLogin", husk_push_handle_login },
	{ "VerifyImages", husk_verify_handle, .streams = true },
	{ "SaveImages", husk_archive_handle_save, .streams = true },
	{ "LoadImages", husk_archive_handle_load, .streams = true, .receives = true },
	{ NULL, NULL },
};
