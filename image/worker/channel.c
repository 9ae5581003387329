#include "image/worker/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/fdpass.h"
#include "base/util.h"

#define READ_MAX (16 * KIB)

void channel_init(struct channel *c)
{
	*c = (struct channel){ 0 };
	buf_init(&c->in, WIRE_HEADER + WIRE_MAX_COMMAND + READ_MAX);
	pb_arena_init(&c->arena, WIRE_COMMAND_MEMORY);
}

void channel_fini(struct channel *c)
{
	buf_fini(&c->in);
	pb_arena_fini(&c->arena);
	for (size_t k = 0; k < c->n_fds; k++)
		fd_close(&c->fds[k]);
	c->n_fds = 0;
}

int channel_receive(struct channel *c, bool wait, struct err *err)
{
	uint8_t *p;
	ssize_t n;

	if (buf_reserve(&c->in, READ_MAX, &p) < 0)
		return err_nomem(err);
	n = fdpass_receive(CHANNEL_FD, p, READ_MAX, c->fds, CHANNEL_MAX_FDS, &c->n_fds,
			   wait ? 0 : MSG_DONTWAIT);
	if (n == -EAGAIN)
		return 0;
	if (n == -EMSGSIZE)
		return err_set(err, -EPROTO, "more than %u descriptors at once", CHANNEL_MAX_FDS);
	if (n < 0)
		return err_errno(err, (int)n, "receive");
	c->eof = n == 0;
	buf_commit(&c->in, (size_t)n);
	return 0;
}

int channel_next(struct channel *c, const Worker__Command **ret, struct err *err)
{
	const Worker__Command *command;
	const uint8_t *data;
	ssize_t n = wire_next(&c->in, WIRE_MAX_COMMAND, &data);
	int r;

	*ret = NULL;
	if (n < 0)
		return err_set(err, (int)n, "command of no bytes, or of more than %zu KiB",
			       WIRE_MAX_COMMAND / KIB);
	if (n == 0)
		return 0;
	pb_arena_fini(&c->arena);
	pb_arena_init(&c->arena, WIRE_COMMAND_MEMORY);
	r = wire_command(&c->arena, data, (size_t)n, &command, err);
	buf_consume(&c->in, WIRE_HEADER + (size_t)n);
	if (r < 0)
		return r;
	if (wire_command_fds(command) > c->n_fds)
		return err_set(err, -EPROTO, "command without its descriptors");
	*ret = command;
	return 0;
}

int channel_take_fd(struct channel *c)
{
	int fd;

	check(c->n_fds > 0);
	fd = c->fds[0];
	memmove(c->fds, c->fds + 1, --c->n_fds * sizeof(c->fds[0]));
	return fd;
}

/* ---- events ---- */

void channel_send(struct channel *c, const Worker__Event *e)
{
	if (wire_write(CHANNEL_FD, &e->base, WIRE_MAX_EVENT) < 0)
		c->broken = true;
}

void channel_send_progress(struct channel *c, uint32_t id, uint64_t bytes)
{
	Worker__Progress p = WORKER__PROGRESS__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	p.bytes = bytes;
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_PROGRESS;
	e.progress = &p;
	channel_send(c, &e);
}

void channel_send_document(struct channel *c, uint32_t id, const void *data, size_t len)
{
	Worker__Document d = WORKER__DOCUMENT__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	d.data.data = (uint8_t *)data;
	d.data.len = len;
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_DOCUMENT;
	e.document = &d;
	channel_send(c, &e);
}

void channel_send_done(struct channel *c, uint32_t id, uint64_t bytes)
{
	Worker__Done d = WORKER__DONE__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	d.bytes = bytes;
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_DONE;
	e.done = &d;
	channel_send(c, &e);
}

void channel_send_failure(struct channel *c, uint32_t id, int code, bool again,
			  const struct err *err)
{
	Worker__Failure f = WORKER__FAILURE__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	wire_failure_of(&f, code, err);
	f.again = again;
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_FAILURE;
	e.failure = &f;
	channel_send(c, &e);
}
