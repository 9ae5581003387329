/* What an agent answers and reports, into the shim that asked: the guest writes it, and the shim is
 * root. The first two bytes cut the rest into pieces. Every question gets one answer, and exits and
 * words of the guest are of the types that the shim's code takes them for. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "shim/vm/agent_client.h"
#include "test/fuzz/fuzz.h"

#define ROUNDS_MAX 200

static struct loop *loop;
static unsigned due, lost;
static size_t seen; /* so that every string is read */

static void on_exited(const Agent__ExitEvent *ev, void *arg)
{
	seen += strlen(ev->id) + strlen(ev->exec_id);
}

static void on_oom(const char *id, void *arg)
{
	seen += strlen(id);
}

static void on_missed(void *arg)
{
	seen++;
}

static void on_lost(const char *why, void *arg)
{
	seen += strlen(why);
	fuzz_assert(lost++ == 0);
}

static const struct agent_ops ops = {
	.exited = on_exited,
	.oom = on_oom,
	.missed = on_missed,
	.lost = on_lost,
};

static void answered(const struct ttrpc_result *res)
{
	fuzz_assert(due-- > 0);
	fuzz_assert((res->code == 0) == (res->resp != NULL));
	if (res->code < 0)
		seen += strlen(err_text(res->err)) + strlen(res->detail_type);
}

static void on_sandbox(const struct ttrpc_result *res, void *arg)
{
	answered(res);
	if (res->code == 0)
		seen += strlen(((const Agent__CreateSandboxResponse *)res->resp)->kernel_release);
}

static void on_started(const struct ttrpc_result *res, void *arg)
{
	const Agent__StartContainerResponse *resp = (const void *)res->resp;

	answered(res);
	if (res->code == 0 && resp->failure)
		seen += strlen(resp->failure->stage) + strlen(resp->failure->message);
}

static void on_removed(const struct ttrpc_result *res, void *arg)
{
	const Agent__RemoveContainerResponse *resp = (const void *)res->resp;

	answered(res);
	for (size_t i = 0; res->code == 0 && i < resp->n_detached_disks; i++)
		seen += resp->detached_disks[i] != 0;
}

static void on_other(const struct ttrpc_result *res, void *arg)
{
	answered(res);
}

static void ask(struct agent *a)
{
	Agent__CreateSandboxRequest sandbox = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	Agent__CreateContainerRequest container = AGENT__CREATE_CONTAINER_REQUEST__INIT;

	due += agent_create_sandbox(a, &sandbox, on_sandbox, NULL) == 0;
	fuzz_assert(agent_events(a) == 0);
	due += agent_create_container(a, &container, on_other, NULL) == 0;
	due += agent_start_container(a, "c", on_started, NULL) == 0;
	due += agent_signal(a, "c", "", 9, true, on_other, NULL) == 0;
	due += agent_remove_container(a, "c", on_removed, NULL) == 0;
	due += agent_list_processes(a, "c", on_other, NULL) == 0;
	due += agent_ping(a, 1000, on_other, NULL) == 0;
	due += agent_set_clock(a, 1, on_other, NULL) == 0;
	due += agent_set_disk_room(a, true, on_other, NULL) == 0;
	due += agent_shutdown(a, on_other, NULL) == 0;
}

static void rounds(int guest)
{
	char waste[4096];

	for (int i = 0; i < ROUNDS_MAX && loop_once(loop, 0) > 0; i++)
		;
	while (recv(guest, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent *a;
	size_t piece, at = 2, n;
	int sv[2];

	if (size < 2)
		return 0;
	if (!loop && loop_new(&loop, NULL) < 0)
		__builtin_trap();
	piece = 1 + data[0] + 256u * data[1];
	due = lost = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0 ||
	    agent_new(loop, sv[0], &ops, NULL, &a, NULL) < 0)
		__builtin_trap();
	ask(a);
	for (; at < size; at += n) {
		n = MIN_OF(piece, size - at);
		if (send(sv[1], data + at, n, MSG_NOSIGNAL) != (ssize_t)n)
			break; /* the shim has had enough of it */
		rounds(sv[1]);
	}
	fd_close(&sv[1]);
	rounds(sv[1]);
	agent_free(a);
	fuzz_assert(due == 0);
	return 0;
}
