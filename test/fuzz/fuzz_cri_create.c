/* A hostile client's CreateContainer: decoded, checked, and made into config.json. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/util.h"
#include "cri/rpc/decode.h"
#include "cri/runtime/spec.h"
#include "cri/runtime/spec_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void build(const Cri__CreateContainerRequest *req)
{
	static char *none[] = { NULL }, *cmd[] = { (char *)"sh", NULL };
	static char *env[] = { (char *)"A=b", (char *)"odd", (char *)"=x", NULL };
	static const struct image_config image = {
		.entrypoint = none,
		.cmd = cmd,
		.env = env,
		.working_dir = (char *)"app",
		.user = (char *)"a:b",
		.stop_signal = (char *)"SIGQUIT",
		.labels = none,
	};
	struct spec_input in = { "pod", "ct", req->sandbox_config, req->config, &image, "image" };
	cleanup_free char *json = NULL, *process = NULL, *log = NULL;
	struct err err = { 0 };
	bool chosen;
	int signo;

	if (spec_check_container(&in, &err) < 0 ||
	    spec_stop_signal(&in, &signo, &chosen, &err) < 0 || spec_build(&in, &json, &err) < 0)
		return;
	json_t *j = json_loads(json, 0, NULL);
	if (!j || signo < 1 || signo > 64 ||
	    spec_check_log_path(in.pod, in.container, &log, &err) < 0)
		abort();
	json_decref(j);
	if (spec_exec(json, cmd, 1, false, &process, &err) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_arena arena;
	ProtobufCMessage *m = NULL;
	struct err err = { 0 };

	pb_arena_init(&arena, RPC_DECODED_MAX);
	if (rpc_decode(&arena, &cri__create_container_request__descriptor, data, size, &m, &err) ==
	    0) {
		const Cri__CreateContainerRequest *req = (const void *)m;
		/* As the handlers look: nothing is built for a pod or container without these. */
		if (spec_check_pod(req->sandbox_config, &err) == 0 && req->config &&
		    req->config->metadata && req->config->image)
			build(req);
	}
	pb_arena_fini(&arena);
	return 0;
}
