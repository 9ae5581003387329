/* husk.shim.v1.Shim: what huskd needs beyond containerd's services. */
#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/shim.h"

static void husk_on_reopen_log(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	static const Shim__ReopenLogResponse ok = SHIM__REOPEN_LOG_RESPONSE__INIT;
	const Shim__ReopenLogRequest *req = (const void *)msg;
	struct err err = { 0 };
	const struct shim *s = arg;
	struct proc *p = container_proc(&s->containers, req->id, "", &err);
	int r = p ? 0 : -ENOENT;

	if (p && !p->io)
		r = err_set(&err, -ENOENT, "the container has no log");
	else if (p)
		r = stdio_reopen_log(p->io, &err);
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		ttrpc_reply(call, &ok.base);
}

static void husk_on_drop_execs(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	static const Shim__DropExecsResponse ok = SHIM__DROP_EXECS_RESPONSE__INIT;
	const Shim__DropExecsRequest *req = (const void *)msg;
	struct err err = { 0 };
	const struct shim *s = arg;
	const struct proc *p = container_proc(&s->containers, req->id, "", &err);

	if (!p) {
		ttrpc_reply_err(call, -ENOENT, &err);
		return;
	}
	container_drop_execs(container_of_proc(p));
	ttrpc_reply(call, &ok.base);
}

static void husk_on_sandbox_info(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Shim__SandboxInfoResponse resp = SHIM__SANDBOX_INFO_RESPONSE__INIT;
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;

	resp.backend = sb->info.backend;
	resp.backend_reason = sb->info.backend_reason;
	resp.vmm_pid = (uint32_t)sb->info.pid;
	resp.qemu_pid = (uint32_t)sb->info.qemu_pid;
	resp.shim_pid = (uint32_t)getpid();
	resp.kernel_release = sb->kernel_release;
	resp.start_requested_ns = sb->requested_ns;
	resp.boot_ns = sb->info.boot_ns;
	resp.vcpu_start_ns = sb->info.vcpu_start_ns;
	resp.agent_ready_ns = sb->info.agent_ready_ns;
	resp.sandbox_ready_ns = sb->ready_ns;
	ttrpc_reply(call, &resp.base);
}

static void husk_on_exit_info(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Shim__ExitInfoRequest *req = (const void *)msg;
	Shim__ExitInfoResponse resp = SHIM__EXIT_INFO_RESPONSE__INIT;
	struct err err = { 0 };
	const struct shim *s = arg;
	const struct proc *p = container_proc(&s->containers, req->id, req->exec_id, &err);

	if (!p) {
		ttrpc_reply_err(call, -ENOENT, &err);
		return;
	}
	if (p->state != PROC_STOPPED) {
		(void)err_set(&err, -EBUSY, "the process has not exited");
		ttrpc_reply_err(call, -EBUSY, &err);
		return;
	}
	resp.oom_killed = p->oom_killed;
	if (p->sandbox_died)
		resp.sandbox_died = p->sandbox_died;
	ttrpc_reply(call, &resp.base);
}

static void husk_on_attach(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	static const Shim__AttachResponse ok = SHIM__ATTACH_RESPONSE__INIT;
	const Shim__AttachRequest *req = (const void *)msg;
	struct err err = { 0 };
	const struct shim *s = arg;
	struct proc *p = container_proc(&s->containers, req->id, "", &err);
	int r = p ? 0 : -ENOENT;

	if (p && (!p->io || p->state == PROC_STOPPED))
		r = err_set(&err, -EBUSY, "the process has exited");
	else if (p)
		r = stdio_tee(p->io, req->stdout, req->stderr, &err);
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		ttrpc_reply(call, &ok.base);
}

const struct ttrpc_method husk_methods[] = {
	{ "ReopenLog", husk_on_reopen_log }, { "Attach", husk_on_attach },
	{ "DropExecs", husk_on_drop_execs }, { "SandboxInfo", husk_on_sandbox_info },
	{ "ExitInfo", husk_on_exit_info },   { NULL },
};
