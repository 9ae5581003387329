/* containerd.runtime.sandbox.v1.Sandbox: how huskd, and containerd with `sandboxer = "shim"`, lead
 * the pod. The shim has one sandbox, so a request names it or gets NOT_FOUND. */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/util.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "shim/service/pending.h"
#include "shim/shim.h"

static bool known(struct shim *s, const char *id, struct ttrpc_call *call)
{
	struct err err = { 0 };

	if (str_eq(id, s->id) && s->sandbox.state != SB_NONE)
		return true;
	(void)err_set(&err, -ENOENT, "sandbox %.130s: not found", id);
	ttrpc_reply_err(call, -ENOENT, &err);
	return false;
}

/* The pod's configuration; NULL when the caller gave none. In `a`. */
static int read_config(const Wkt__Any *any, struct pb_arena *a, const Cri__PodSandboxConfig **ret,
		       struct err *err)
{
	const char *type = pb_any_type(any);
	ProtobufCMessage *msg;
	int r;

	*ret = NULL;
	if (!any || (str_empty(type) && any->value.len == 0))
		return 0;
	if (!str_eq(type, "runtime.v1.PodSandboxConfig"))
		return err_set(err, -EINVAL, "options of type \"%.100s\"", type);
	r = pb_unpack(a, &cri__pod_sandbox_config__descriptor, any->value.data, any->value.len,
		      &msg);
	if (r < 0)
		return err_errno(err, r, "the pod's configuration");
	*ret = (const Cri__PodSandboxConfig *)msg;
	return 0;
}

static void sandbox_service_on_create(struct ttrpc_call *call, const ProtobufCMessage *msg,
				      void *arg)
{
	static const Sandbox__CreateSandboxResponse ok = SANDBOX__CREATE_SANDBOX_RESPONSE__INIT;
	const Sandbox__CreateSandboxRequest *req = (const void *)msg;
	const Cri__PodSandboxConfig *cfg = NULL;
	cleanup_pb_arena struct pb_arena arena;
	struct shim *s = arg;
	struct err err = { 0 };
	int r = 0;

	pb_arena_init(&arena, SANDBOX_CONFIG_MAX);
	if (!str_eq(req->sandbox_id, s->id))
		r = err_set(&err, -EINVAL, "this shim belongs to sandbox %s", s->id);
	else if (s->sandbox.state != SB_NONE)
		r = err_set(&err, -EEXIST, "sandbox %s exists already", s->id);
	else if (req->n_rootfs)
		r = err_set(&err, -ENOSYS, "a sandbox with a root file system is not supported");
	if (r == 0)
		r = read_config(req->options, &arena, &cfg, &err);
	if (r == 0)
		r = sandbox_prepare(&s->sandbox, cfg, &err);
	if (r == 0 && !str_empty(req->netns_path))
		r = sandbox_set_netns(&s->sandbox, req->netns_path, &err);
	if (r < 0) {
		(void)err_wrap(&err, r, "create sandbox");
		ttrpc_reply_err(call, r, &err);
		return;
	}
	ttrpc_reply(call, &ok.base);
}

static void sandbox_service_on_ready(struct ttrpc_call *call, void *subject, int code,
				     const struct err *err)
{
	Sandbox__StartSandboxResponse resp = SANDBOX__START_SANDBOX_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	const struct sandbox *sb = subject;

	if (code < 0) {
		ttrpc_reply_err(call, code, err);
		return;
	}
	pb_timestamp_set(&ts, sb->created_at);
	resp.pid = sandbox_pid(sb);
	resp.created_at = &ts;
	ttrpc_reply(call, &resp.base);
}

static void sandbox_service_on_start(struct ttrpc_call *call, const ProtobufCMessage *msg,
				     void *arg)
{
	const Sandbox__StartSandboxRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct err err = { 0 };
	int r;

	if (!known(s, req->sandbox_id, call))
		return;
	r = sandbox_start(&s->sandbox, &err);
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		pending_add(call, &s->sandbox.ready_waits, sandbox_service_on_ready, &s->sandbox);
}

static void sandbox_service_on_platform(struct ttrpc_call *call, const ProtobufCMessage *msg,
					void *arg)
{
	Sandbox__PlatformResponse resp = SANDBOX__PLATFORM_RESPONSE__INIT;
	Types__Platform p = TYPES__PLATFORM__INIT;

	p.os = (char *)"linux";
#if defined(__x86_64__)
	p.architecture = (char *)"amd64";
#elif defined(__aarch64__)
	p.architecture = (char *)"arm64";
#else
#error "which architecture, in the words of Go?"
#endif
	resp.platform = &p;
	ttrpc_reply(call, &resp.base);
}

static void sandbox_service_on_end_of_stop(struct ttrpc_call *call, void *subject, int code,
					   const struct err *err)
{
	static const Sandbox__StopSandboxResponse ok = SANDBOX__STOP_SANDBOX_RESPONSE__INIT;

	if (code < 0)
		ttrpc_reply_err(call, code, err);
	else
		ttrpc_reply(call, &ok.base);
}

static void sandbox_service_on_stop(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Sandbox__StopSandboxRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;

	if (!known(s, req->sandbox_id, call))
		return;
	if (sb->state == SB_STOPPED) {
		sandbox_service_on_end_of_stop(call, sb, 0, NULL);
		return;
	}
	pending_add(call, &sb->stopped_waits, sandbox_service_on_end_of_stop, sb);
	sandbox_stop(sb);
}

static void sandbox_service_on_end(struct ttrpc_call *call, void *subject, int code,
				   const struct err *err)
{
	Sandbox__WaitSandboxResponse resp = SANDBOX__WAIT_SANDBOX_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	const struct sandbox *sb = subject;

	if (code < 0) {
		ttrpc_reply_err(call, code, err);
		return;
	}
	resp.exit_status = sandbox_exit_status(sb);
	pb_timestamp_set(&ts, sb->exited_at);
	resp.exited_at = &ts;
	ttrpc_reply(call, &resp.base);
}

static void sandbox_service_on_wait(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Sandbox__WaitSandboxRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;

	if (!known(s, req->sandbox_id, call))
		return;
	if (sb->state == SB_STOPPED)
		sandbox_service_on_end(call, sb, 0, NULL);
	else
		pending_add(call, &sb->stopped_waits, sandbox_service_on_end, sb);
}

static void sandbox_service_on_status(struct ttrpc_call *call, const ProtobufCMessage *msg,
				      void *arg)
{
	const Sandbox__SandboxStatusRequest *req = (const void *)msg;
	Sandbox__SandboxStatusResponse resp = SANDBOX__SANDBOX_STATUS_RESPONSE__INIT;
	Sandbox__SandboxStatusResponse__InfoEntry reason =
		SANDBOX__SANDBOX_STATUS_RESPONSE__INFO_ENTRY__INIT;
	Sandbox__SandboxStatusResponse__InfoEntry *info[1] = { &reason };
	Wkt__Timestamp created = WKT__TIMESTAMP__INIT, exited = created;
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;

	if (!known(s, req->sandbox_id, call))
		return;
	resp.sandbox_id = (char *)s->id;
	resp.pid = sandbox_pid(sb);
	resp.state = (char *)(sb->state == SB_READY ? "SANDBOX_READY" : "SANDBOX_NOTREADY");
	pb_timestamp_set(&created, sb->created_at);
	pb_timestamp_set(&exited, sb->exited_at);
	if (sb->created_at)
		resp.created_at = &created;
	if (sb->exited_at)
		resp.exited_at = &exited;
	/* Why it ended by itself. */
	if (*sb->why) {
		reason.key = (char *)"reason";
		reason.value = sb->why;
		resp.info = info;
		resp.n_info = 1;
	}
	ttrpc_reply(call, &resp.base);
}

static void sandbox_service_on_ping(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	static const Sandbox__PingResponse ok = SANDBOX__PING_RESPONSE__INIT;
	const Sandbox__PingRequest *req = (const void *)msg;

	if (known(arg, req->sandbox_id, call))
		ttrpc_reply(call, &ok.base);
}

static void sandbox_service_on_shut_down(struct ttrpc_call *call, void *subject, int code,
					 const struct err *err)
{
	static const Sandbox__ShutdownSandboxResponse ok = SANDBOX__SHUTDOWN_SANDBOX_RESPONSE__INIT;

	if (code < 0)
		ttrpc_reply_err(call, code, err);
	else
		ttrpc_reply(call, &ok.base);
}

static void sandbox_service_on_shutdown(struct ttrpc_call *call, const ProtobufCMessage *msg,
					void *arg)
{
	const Sandbox__ShutdownSandboxRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct err err = { 0 };

	/* A failed CreateSandbox is followed by it, too. */
	if (!str_eq(req->sandbox_id, s->id)) {
		(void)err_set(&err, -ENOENT, "sandbox %.130s: not found", req->sandbox_id);
		ttrpc_reply_err(call, -ENOENT, &err);
		return;
	}
	pending_add(call, &s->exit_waits, sandbox_service_on_shut_down, s);
	shim_exit(s);
}

static void sandbox_service_on_metrics(struct ttrpc_call *call, const ProtobufCMessage *msg,
				       void *arg)
{
	struct err err = { 0 };

	(void)err_set(&err, -ENOSYS, "statistics are not supported yet");
	ttrpc_reply_err(call, -ENOSYS, &err);
}

const struct ttrpc_method sandbox_methods[] = {
	{ "CreateSandbox", sandbox_service_on_create },
	{ "StartSandbox", sandbox_service_on_start },
	{ "Platform", sandbox_service_on_platform },
	{ "StopSandbox", sandbox_service_on_stop },
	{ "WaitSandbox", sandbox_service_on_wait },
	{ "SandboxStatus", sandbox_service_on_status },
	{ "PingSandbox", sandbox_service_on_ping },
	{ "ShutdownSandbox", sandbox_service_on_shutdown },
	{ "SandboxMetrics", sandbox_service_on_metrics },
	{ NULL },
};
