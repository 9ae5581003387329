/* A server that a client feeds with arbitrary bytes. Some methods answer at once, some when the
 * client is gone, one streams. First byte: bit 0 = the client reads answers, bit 1 = it only shuts
 * down its side. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "test/fuzz/fuzz.h"

#define ROUNDS_MAX 10000

static int open_calls;

static void gone(struct ttrpc_call *call, void *arg)
{
	open_calls--;
	ttrpc_reply_err(call, -ECANCELED, NULL);
}

static void later(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	open_calls++;
	ttrpc_call_on_cancel(call, gone, NULL);
}

static void now(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;
	uint32_t pids[] = { 1, 2, 3 };

	resp.pids = pids;
	resp.n_pids = ARRAY_SIZE(pids);
	if (req->descriptor == &agent__list_processes_request__descriptor)
		ttrpc_reply(call, &resp.base);
	else
		ttrpc_reply_err(call, -ENOENT, NULL);
}

static void stream(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__Event ev = AGENT__EVENT__INIT;

	for (ev.seq = 1; ev.seq < 4; ev.seq++)
		if (ttrpc_send(call, &ev.base) < 0)
			break;
	ttrpc_reply(call, NULL);
}

static void feed(struct loop *l, int fd, const uint8_t *data, size_t size, bool reads)
{
	char answers[4096];
	ssize_t n;

	for (int i = 0; size > 0 && i < ROUNDS_MAX; i++) {
		n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		} else if (n < 0 && errno != EAGAIN) {
			break;
		}
		fuzz_assert(loop_once(l, 0) >= 0);
		if (reads)
			(void)!recv(fd, answers, sizeof(answers), MSG_DONTWAIT);
	}
	while (loop_once(l, 0) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ttrpc_method methods[] = {
		{ "CreateSandbox", now },    { "CreateContainer", now },
		{ "StartContainer", later }, { "ExecProcess", later },
		{ "SignalProcess", now },    { "RemoveContainer", now },
		{ "ListProcesses", now },    { "Events", stream, .streams = true },
		{ "Shutdown", now },	     { NULL },
	};
	static const struct ttrpc_service svc = { &agent__agent__descriptor, methods, NULL };
	struct ttrpc_server *s;
	struct loop *l;
	int sv[2];

	if (size == 0)
		return 0;
	fuzz_assert(loop_new(&l, NULL) == 0);
	fuzz_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	fuzz_assert(ttrpc_server_new(l, &svc, 1, &s, NULL) == 0);
	fuzz_assert(ttrpc_server_add(s, sv[0]) == 0);
	feed(l, sv[1], data + 1, size - 1, data[0] & 1);
	if (data[0] & 2)
		(void)shutdown(sv[1], SHUT_WR);
	while (loop_once(l, 0) > 0)
		;
	(void)close(sv[1]);
	while (loop_once(l, 0) > 0)
		;
	fuzz_assert(open_calls == 0);
	ttrpc_server_free(s);
	loop_free(l);
	return 0;
}
