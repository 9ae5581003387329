#include "image/job/unpacker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/job/proc.h"
#include "image/store/layers.h"
#include "image/wire.h"
#include "image/worker/worker.h"

#define MODE "unpack"
#define PIPE_SIZE (1 * MIB)

struct unpacker {
	const char *mode;
	struct proc *proc;
	char *path;
	int report_fd;
	struct ev_io io;
	struct buf in;
	char id[DIGEST_LEN + 1];
	char **want;  /* the diff ids of a merged disk; NULL = one layer, with one of its own */
	size_t disks; /* that `inherit` reads; 0 for the others */
	struct layer_facts facts;
	uint32_t entries;
	bool reserve_reached;
	unpacker_done_fn done;
	void *arg;
};

const struct layer_facts *unpacker_facts(const struct unpacker *u)
{
	return &u->facts;
}

bool unpacker_reserve_reached(const struct unpacker *u)
{
	return u->reserve_reached;
}

uint32_t unpacker_entries(const struct unpacker *u)
{
	return u->entries;
}

const char *unpacker_path(const struct unpacker *u)
{
	return u->path;
}

void unpacker_free(struct unpacker *u)
{
	if (!u)
		return;
	ev_io_del(&u->io);
	fd_close(&u->report_fd);
	proc_drop(u->proc);
	buf_fini(&u->in);
	if (u->path)
		(void)unlink(u->path);
	free(u->path);
	strv_free(u->want);
	free(u);
}

/* `done`, once. */
static void end(struct unpacker *u, int code, const struct err *why)
{
	struct err err = *why;

	check(u->io.loop);
	ev_io_del(&u->io);
	u->done(u->arg, code, code < 0 ? NULL : u->id, &err);
}

/* The layers of a merged disk must be what they are said to be; for one, the caller compares. */
static int check_ids(struct unpacker *u, const Worker__UnpackReport *rep, struct err *err)
{
	size_t n = u->disks ? 0 : u->want ? strv_len(u->want) : 1;

	if (rep->n_diff_ids != n) {
		err_set(err, -EPROTO, "%zu digests for %zu layers", rep->n_diff_ids, n);
		return proc_err_protocol(u->mode, err);
	}
	if (rep->disks != u->disks) {
		err_set(err, -EPROTO, "%u disks of %zu", rep->disks, u->disks);
		return proc_err_protocol(u->mode, err);
	}
	for (size_t k = 0; u->want && k < n; k++)
		if (!str_eq(rep->diff_ids[k], u->want[k]))
			return err_set(err, -EBADMSG, "part %zu of %zu: its content is %s, not %s",
				       k + 1, n, rep->diff_ids[k], u->want[k]);
	if (!u->want && n)
		memcpy(u->id, rep->diff_ids[0], sizeof(u->id));
	u->entries = rep->entries;
	u->facts = (struct layer_facts){ .implied = rep->implied,
					 .root_named = rep->root > 0,
					 .root_unusual = rep->root > 1 };
	return 0;
}

/* All that the process has said: one report, or nothing. */
static int take_report(struct unpacker *u, struct err *err)
{
	cleanup_pb_arena struct pb_arena arena;
	const Worker__UnpackReport *rep;
	const uint8_t *data;
	ssize_t n = wire_next(&u->in, WIRE_MAX_SMALL, &data);
	int r;

	pb_arena_init(&arena, WIRE_REPORT_MEMORY);
	if (n == 0)
		return proc_err_died(u->mode, -EIO, err);
	if (n < 0 || buf_len(&u->in) != WIRE_HEADER + (size_t)n)
		r = err_set(err, -EPROTO, "not one report");
	else
		r = wire_unpack_report(&arena, data, (size_t)n, &rep, err);
	if (r == -EPROTO)
		return proc_err_protocol(u->mode, err);
	if (r < 0)
		return r;
	u->reserve_reached = rep->failure && rep->reserve_reached;
	return rep->failure ? wire_failure(rep->failure, err) : check_ids(u, rep, err);
}

static void unpacker_on_io(struct ev_io *io, uint32_t events)
{
	struct unpacker *u = io->arg;
	ssize_t n = buf_read_fd(&u->in, u->report_fd, WIRE_HEADER + WIRE_MAX_SMALL);
	struct err err = { 0 };
	int r;

	if (n == -EAGAIN || n == -EINTR || n > 0)
		return;
	if (n == -ENOBUFS) {
		err_set(&err, -EPROTO, "more than one report");
		r = proc_err_protocol(u->mode, &err);
	} else {
		r = n < 0 ? proc_err_lost(u->mode, (int)n, -EIO, &err) : take_report(u, &err);
	}
	end(u, r, &err);
}

/* The end of the process is seen as the end of its report. */
static void unpacker_on_exit(void *owner, int status)
{
	struct unpacker *u = owner;

	u->proc = NULL;
}

/* inputs: blobs or disks, lowest first. */
static int run(struct procs *ps, struct unpacker *u, char *const *args, const int *inputs, size_t n,
	       struct err *err)
{
	cleanup_fd int report_write = -1, file = -1;
	int p[2], fds[4 + UNPACKER_MAX_LAYERS], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	u->report_fd = p[0];
	report_write = p[1];
	file = open(u->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0)
		return err_errno(err, -errno, "%s", u->path);
	fds[WORKER_REPORT_FD] = report_write;
	fds[2] = -1; /* proc.c */
	fds[WORKER_OUT_FD] = file;
	for (size_t k = 0; k < n; k++)
		fds[WORKER_LAYER_FD(k)] = inputs[k];
	r = proc_start(ps, args, fds, 3 + (int)n, unpacker_on_exit, u, &u->proc, err);
	if (r < 0)
		return r;
	if (fd_set_nonblock(u->report_fd, true) < 0 ||
	    ev_io_add(ps->loop, &u->io, u->report_fd, EPOLLIN, unpacker_on_io, u) < 0)
		return err_nomem(err);
	return 0;
}

/* On failure `u` is freed. */
static int start(struct procs *ps, struct unpacker *u, char *const *args, const int *inputs,
		 size_t n, struct unpacker **ret, struct err *err)
{
	int r = run(ps, u, args, inputs, n, err);

	if (r < 0)
		unpacker_free(u);
	else
		*ret = u;
	return r;
}

/* kinds: of compression, "gzip,zstd". */
static int start_unpack(struct procs *ps, struct unpacker *u, const char *kinds, bool bottom,
			uint64_t reserve, const int *inputs, size_t n, struct unpacker **ret,
			struct err *err)
{
	char reserve_text[24];
	char *const args[] = { (char *)MODE,  (char *)"--layers",
			       (char *)kinds, (char *)"--id",
			       u->id,	      (char *)"--reserve",
			       reserve_text,  bottom ? (char *)"--bottom" : NULL,
			       NULL };

	(void)snprintf(reserve_text, sizeof(reserve_text), "%llu", (unsigned long long)reserve);
	return start(ps, u, args, inputs, n, ret, err);
}

static int make(const char *path, const char *id, unpacker_done_fn done, void *arg,
		struct unpacker **ret, struct err *err)
{
	struct unpacker *u = calloc(1, sizeof(*u));

	if (!u)
		return err_nomem(err);
	u->mode = MODE;
	u->report_fd = -1;
	u->done = done;
	u->arg = arg;
	buf_init(&u->in, WIRE_HEADER + WIRE_MAX_SMALL);
	snprintf(u->id, sizeof(u->id), "%s", id);
	u->path = strdup(path);
	if (!u->path) {
		unpacker_free(u);
		return err_nomem(err);
	}
	*ret = u;
	return 0;
}

int unpacker_new(struct procs *ps, const char *path, enum media_compression compression,
		 const char *diff_id, uint64_t reserve, unpacker_done_fn done, void *arg,
		 struct unpacker **ret, int *ret_fd, struct err *err)
{
	cleanup_fd int in_read = -1, in_write = -1;
	struct unpacker *u;
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	in_read = p[0];
	in_write = p[1];
	(void)fcntl(in_write, F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one works, too */
	r = make(path, diff_id, done, arg, &u, err);
	if (r == 0)
		r = start_unpack(ps, u, media_compression_name(compression), false, reserve,
				 &in_read, 1, ret, err);
	if (r == 0)
		*ret_fd = take_fd(&in_write);
	return r;
}

static int set_want(struct unpacker *u, const struct unpacker_layer *l, size_t n)
{
	u->want = calloc(n + 1, sizeof(*u->want));
	for (size_t k = 0; u->want && k < n; k++) {
		u->want[k] = strdup(l[k].diff_id);
		if (!u->want[k])
			return -ENOMEM;
	}
	return u->want ? 0 : -ENOMEM;
}

int unpacker_new_merged(struct procs *ps, const char *path, const char *id,
			const struct unpacker_layer *l, size_t n, bool bottom, uint64_t reserve,
			unpacker_done_fn done, void *arg, struct unpacker **ret, struct err *err)
{
	char kinds[UNPACKER_MAX_LAYERS * 5 + 1];
	int inputs[UNPACKER_MAX_LAYERS];
	struct unpacker *u;
	size_t at = 0;
	int r;

	if (!n || n > UNPACKER_MAX_LAYERS)
		return err_set(err, -EINVAL, "%zu layers in one", n);
	for (size_t k = 0; k < n; k++) {
		at += (size_t)snprintf(kinds + at, sizeof(kinds) - at, "%s%s", k ? "," : "",
				       media_compression_name(l[k].compression));
		inputs[k] = l[k].fd;
	}
	r = make(path, id, done, arg, &u, err);
	if (r < 0)
		return r;
	if (set_want(u, l, n) < 0) {
		unpacker_free(u);
		return err_nomem(err);
	}
	return start_unpack(ps, u, kinds, bottom, reserve, inputs, n, ret, err);
}

int unpacker_new_inherited(struct procs *ps, const char *path, const char *id, const int *fds,
			   size_t n, unpacker_done_fn done, void *arg, struct unpacker **ret,
			   struct err *err)
{
	char number[24];
	char *const args[] = { (char *)"inherit", number, (char *)id, NULL };
	struct unpacker *u;
	int r;

	if (!n || n > UNPACKER_MAX_LAYERS)
		return err_set(err, -EINVAL, "%zu disks under one", n);
	(void)snprintf(number, sizeof(number), "%zu", n);
	r = make(path, id, done, arg, &u, err);
	if (r < 0)
		return r;
	u->mode = args[0];
	u->disks = n;
	return start(ps, u, args, fds, n, ret, err);
}
