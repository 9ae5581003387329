#include "test/lib/unit.h"
#include "test/lib/agent_driver.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"

#define CALL_MS 60000

struct driver drv;

static void on_lost(void *arg)
{
	((struct driver *)arg)->lost = true;
}

void driver_init(struct driver *d, int fd)
{
	struct err err = { 0 };

	assert_ok(loop_new(&d->loop, &err), &err);
	assert_ok(ttrpc_client_new(d->loop, fd, on_lost, d, &d->client, &err), &err);
	d->next_stream = 100;
}

void driver_fini(struct driver *d)
{
	ttrpc_client_free(d->client);
	d->client = NULL;
	for (int i = 0; i < 4; i++)
		(void)!loop_once(d->loop, 0);
	loop_free(d->loop);
	d->loop = NULL;
}

struct drive_call {
	struct driver *d;
	bool done;
	int code;
	ProtobufCMessage *resp;
};

static ProtobufCMessage *copy_message(const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *bytes = malloc(n + 1);
	ProtobufCMessage *copy;

	assert_non_null(bytes);
	protobuf_c_message_pack(m, bytes);
	copy = protobuf_c_message_unpack(m->descriptor, NULL, n, bytes);
	assert_non_null(copy);
	free(bytes);
	return copy;
}

static void on_done(const struct ttrpc_result *res, void *arg)
{
	struct drive_call *w = arg;

	w->d->code = w->code = res->code;
	w->d->status = res->status;
	if (res->code < 0)
		w->d->err = *res->err;
	else
		w->resp = copy_message(res->resp);
	w->done = true;
}

static void send_call(struct driver *d, struct drive_call *w, const char *method, const void *req)
{
	*w = (struct drive_call){ .d = d };
	assert_int_equal(ttrpc_client_call(d->client, &agent__agent__descriptor, method, req,
					   CALL_MS, on_done, w),
			 0);
}

ProtobufCMessage *drive(struct driver *d, const char *method, const void *req)
{
	struct drive_call w;

	d->err = (struct err){ 0 };
	send_call(d, &w, method, req);
	while (!w.done)
		assert_true(loop_once(d->loop, -1) >= 0);
	return w.resp;
}

int drive_code(struct driver *d, const char *method, const void *req)
{
	ProtobufCMessage *m = drive(d, method, req);

	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
	return d->code;
}

static int end_call(struct drive_call *w)
{
	if (w->resp)
		protobuf_c_message_free_unpacked(w->resp, NULL);
	return w->code;
}

void drive_two(struct driver *d, const char *m1, const void *r1, int *ret1, const char *m2,
	       const void *r2, int *ret2)
{
	struct drive_call a, b;

	send_call(d, &a, m1, r1);
	send_call(d, &b, m2, r2);
	while (!a.done || !b.done)
		assert_true(loop_once(d->loop, -1) >= 0);
	*ret1 = end_call(&a);
	*ret2 = end_call(&b);
}

struct drive_call *drive_begin(struct driver *d, const char *method, const void *req)
{
	struct drive_call *c = malloc(sizeof(*c));

	assert_non_null(c);
	send_call(d, c, method, req);
	return c;
}

bool drive_answered(struct driver *d, const struct drive_call *c)
{
	assert_true(loop_once(d->loop, 0) >= 0);
	return c->done;
}

int drive_end(struct driver *d, struct drive_call *c)
{
	int r;

	while (!c->done)
		assert_true(loop_once(d->loop, -1) >= 0);
	r = end_call(c);
	free(c);
	return r;
}

static void on_event(const ProtobufCMessage *msg, void *arg)
{
	const Agent__Event *ev = (const void *)msg;
	struct driver *d = arg;
	struct seen_event *s = &d->events[d->n_events];

	assert_true(d->n_events < DRIVER_EVENTS);
	s->seq = ev->seq;
	if (ev->event_case == AGENT__EVENT__EVENT_OOM) {
		s->oom = true;
		snprintf(s->id, sizeof(s->id), "%s", ev->oom->id);
	} else {
		snprintf(s->id, sizeof(s->id), "%s", ev->exit->id);
		snprintf(s->exec_id, sizeof(s->exec_id), "%s", ev->exit->exec_id);
		s->status = ev->exit->exit_status;
		s->pid = ev->exit->pid;
		s->oom_killed = ev->exit->oom_killed;
		assert_true(ev->exit->exited_at_ns > 0);
	}
	d->n_events++;
}

static void on_events_end(const struct ttrpc_result *res, void *arg)
{
	((struct driver *)arg)->events_ended = true;
}

void driver_events(struct driver *d)
{
	Agent__EventsRequest req = AGENT__EVENTS_REQUEST__INIT;

	assert_int_equal(ttrpc_client_stream(d->client, &agent__agent__descriptor, "Events",
					     &req.base, on_event, on_events_end, d),
			 0);
}

static const struct seen_event *find_exit(struct driver *d, const char *id, const char *exec_id)
{
	for (size_t i = 0; i < d->n_events; i++)
		if (!d->events[i].oom && str_eq(d->events[i].id, id) &&
		    str_eq(d->events[i].exec_id, exec_id))
			return &d->events[i];
	return NULL;
}

const struct seen_event *drive_exit(struct driver *d, const char *id, const char *exec_id)
{
	uint64_t end = now_mono_ns() + 60 * NS_PER_S;
	const struct seen_event *s;

	while (!(s = find_exit(d, id, exec_id))) {
		assert_true(loop_once(d->loop, 1000) >= 0);
		if (now_mono_ns() > end || d->lost)
			fail_msg("no exit event of %s/%s", id, exec_id);
	}
	return s;
}

int drive_stream(struct driver *d, uint64_t id)
{
	int fd = d->connect(d);
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(id >> (8 * i));
	assert_int_equal(write_all(fd, bytes, 8), 0);
	return fd;
}

static void wait_readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, ms) != 1)
		fail_msg("nothing to read for %d ms", ms);
}

char *drive_read_all(int fd, size_t *ret_total)
{
	static char keep[65536 + 1];
	size_t n = 0, total = 0;
	char buf[65536];

	for (;;) {
		ssize_t r;

		wait_readable(fd, 60000);
		r = read(fd, buf, sizeof(buf));
		if (r <= 0)
			break;
		total += (size_t)r;
		if ((size_t)r > sizeof(keep) - 1 - n)
			r = (ssize_t)(sizeof(keep) - 1 - n);
		memcpy(keep + n, buf, (size_t)r);
		n += (size_t)r;
	}
	keep[n] = '\0';
	close(fd);
	if (ret_total)
		*ret_total = total;
	return keep;
}

void drive_expect(int fd, const char *want)
{
	char buf[8192] = "";
	size_t n = 0;

	while (!strstr(buf, want)) {
		ssize_t r;

		wait_readable(fd, 30000);
		r = read(fd, buf + n, sizeof(buf) - 1 - n);
		if (r <= 0)
			fail_msg("the stream ended without \"%s\": \"%s\"", want, buf);
		n += (size_t)r;
		buf[n] = '\0';
	}
}

void image_path(char *out, size_t size, const char *dir, const char *name)
{
	snprintf(out, size, "%s/%s.ext4", dir, name);
}

/* base: busybox and /etc; top: shadows a file and adds one. */
static const char script[] =
	"set -e; cd \"$1\"; command -v mke2fs >/dev/null; b=$(command -v busybox);\n"
	"mkdir -p base/bin base/etc base/root base/home/app base/tmp top/etc top/opt scratch\n"
	"chmod 1777 base/tmp; cp \"$b\" base/bin/busybox\n"
	"for a in $(\"$b\" --list | grep -v '^busybox$'); do ln -s busybox base/bin/$a; done\n"
	"printf 'root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1000::/home/app:/bin/sh\\n' "
	">base/etc/passwd\n"
	"printf 'root:x:0:\\napp:x:1000:\\nextra:x:2000:app\\n' >base/etc/group\n"
	"echo base >base/etc/layer; echo top >top/etc/layer; ln -s /nowhere/file "
	"base/etc/dangling\n"
	"echo data >base/etc/plain; chmod 644 base/etc/plain; mkdir base/closed; chmod 700 "
	"base/closed\n"
	"for i in base top scratch; do\n"
	"rm -f $i.ext4; truncate -s 16M $i.ext4\n"
	"mke2fs -q -F -t ext4 -O ^has_journal -E root_owner=0:0 -d $i $i.ext4; done\n"
	"rm -rf base top scratch\n";

int images_make(const char *dir)
{
	char path[200];
	cleanup_free char *cmd = str_fmt("sh -c '%s' sh %s >&2", "", dir);
	cleanup_free char *file = str_fmt("%s/make.sh", dir);
	FILE *f = fopen(file, "we");
	int r;

	assert_non_null(f);
	fwrite(script, 1, sizeof(script) - 1, f);
	fclose(f);
	free_ptr(&cmd);
	cmd = str_fmt("PATH=$PATH:/sbin:/usr/sbin sh %s %s", file, dir);
	r = system(cmd);
	unlink(file);
	image_path(path, sizeof(path), dir, "scratch");
	return r == 0 && access(path, R_OK) == 0 ? 0 : -ENOENT;
}
