/*
 * `unpack`: the decoder (this process) and the builder (its child), joined by a pipe for the tars
 * (unpack_pipe.h) and one for the builder's report.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/pb.h"
#include "base/util.h"
#include "image/layer/decode.h"
#include "image/digest.h"
#include "image/ext4/writer.h"
#include "image/limits.h"
#include "image/layer/layer_tar.h"
#include "image/layer/unpack_pipe.h"
#include "image/ext4/tree.h"
#include "image/wire.h"
#include "image/worker/worker.h"
#include "image/worker/confine.h"

#define PIPE_SIZE (1 * MIB)
#define CHUNK UNPACK_PIPE_CHUNK
#define MAX_CPU_S 900
#define CHECK_SPACE_EVERY (4 * MIB) /* of the tars */

struct unpack {
	enum media_compression kinds[IMAGE_MAX_LAYERS];
	size_t n_layers;
	bool bottom;
	uint64_t reserve;   /* bytes that stay free on the disk */
	uint64_t unchecked; /* bytes of the tars since the disk was looked at */
	bool reserve_reached;
	uint8_t uuid[16];
	int tar[2];    /* decoder -> builder */
	int report[2]; /* builder -> decoder: UnpackReport */
	char diff_ids[IMAGE_MAX_LAYERS][DIGEST_LEN + 1];
	char *diff_id_list[IMAGE_MAX_LAYERS];
	union {
		struct unpack_pipe pipe; /* builder */
		uint8_t buf[CHUNK];	 /* decoder */
	};
};

/* ---- builder ---- */

/* huskd looks at the disk, too, for processes that do not tell the truth; but a layer of which a
 * kilobyte becomes a megabyte is too fast for it. */
static bool reserve_is_touched(struct unpack *u, size_t bytes)
{
	struct statfs fs;

	u->unchecked += bytes;
	if (!u->reserve || u->unchecked < CHECK_SPACE_EVERY)
		return false;
	u->unchecked = 0;
	u->reserve_reached = fstatfs(WORKER_OUT_FD, &fs) == 0 &&
			     (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize < u->reserve;
	return u->reserve_reached;
}

static ssize_t unpack_on_read(void *arg, const void **ret)
{
	struct unpack *u = arg;
	ssize_t n = unpack_pipe_read(&u->pipe, ret);

	return n > 0 && reserve_is_touched(u, (size_t)n) ? -ENOSPC : n;
}

static int build_layers(struct unpack *u, struct tree *t, struct ext4_writer *w, struct err *err)
{
	unpack_pipe_init(&u->pipe, unpack_pipe_read_fd, &u->tar[0]);
	for (size_t k = 0; k < u->n_layers; k++) {
		int r = k ? tree_next_layer(t, err) : 0;

		if (r == 0)
			r = layer_tar_read(unpack_on_read, u, t, w, err);
		if (r < 0)
			return u->n_layers > 1
				       ? err_wrap(err, r, "part %zu of %zu", k + 1, u->n_layers)
				       : r;
		if (unpack_pipe_next(&u->pipe) != (k + 1 < u->n_layers))
			return err_set(err, -EPROTO,
				       "the decoder sent %s than the %zu layers it was to unpack",
				       k + 1 < u->n_layers ? "fewer" : "more", u->n_layers);
	}
	if (u->bottom)
		tree_is_bottom(t);
	return 0;
}

static int build(struct unpack *u, Worker__UnpackReport *rep, struct err *err)
{
	struct ext4_writer *w = NULL;
	struct tree_facts facts;
	struct tree *t = NULL;
	int r = confine_build(err);

	if (r < 0)
		return r;
	r = tree_new(&t);
	if (r < 0)
		return err_nomem(err);
	tree_spool(t, WORKER_OUT_FD, WORKER_SPOOL_OFFSET);
	r = ext4_writer_new(WORKER_OUT_FD, u->uuid, &w, err);
	if (r == 0)
		r = build_layers(u, t, w, err);
	if (r == 0) {
		tree_facts(t, &facts);
		rep->implied = facts.implied;
		rep->root = facts.root_unusual ? 2 : facts.root_named;
		r = ext4_writer_finish(w, t, &rep->file_bytes, err);
	}
	/* The spool is cut off now: nothing may read the tree from here on. */
	if (r == 0 && fdatasync(WORKER_OUT_FD) < 0)
		r = err_errno(err, -errno, "sync the layer's file");
	if (r == -ENOMEM)
		r = err_wrap(err, r, "more than the %zu MiB that may be used",
			     WORKER_MAX_DATA / MIB);
	rep->reserve_reached = u->reserve_reached;
	rep->entries = tree_entries(t);
	rep->dropped_xattrs = tree_dropped_xattrs(t);
	ext4_writer_free(w);
	tree_free(t);
	return r;
}

static noreturn_fn void builder_main(struct unpack *u)
{
	const struct confine_limits limits = { .memory = WORKER_MAX_ADDRESSES,
					       .file = WORKER_SPOOL_OFFSET + WORKER_SPOOL_MAX,
					       .cpu_s = MAX_CPU_S,
					       .data = WORKER_MAX_DATA };
	Worker__UnpackReport rep = WORKER__UNPACK_REPORT__INIT;
	struct err err = { 0 };
	int r;

	for (size_t k = 0; k < u->n_layers; k++)
		close(WORKER_LAYER_FD(k));
	close(WORKER_REPORT_FD);
	close(u->tar[1]);
	close(u->report[0]);
	r = confine_common(&limits, &err);
	if (r == 0)
		r = build(u, &rep, &err);
	_exit(wire_write_unpack_report(u->report[1], &rep, r, &err) < 0);
}

/* ---- decoder ---- */

static int unpack_on_decoded(void *arg, const void *data, size_t len)
{
	const struct unpack *u = arg;

	return unpack_pipe_write(u->tar[1], data, len);
}

static int decode(struct unpack *u, size_t layer, char diff_id[DIGEST_LEN + 1], uint64_t *ret_bytes,
		  struct err *err)
{
	struct decoder *d = NULL;
	uint8_t sha[32];
	ssize_t n;
	int r = decoder_new(u->kinds[layer], IMAGE_MAX_LAYER, unpack_on_decoded, u, &d);

	if (r < 0)
		return err_nomem(err);
	while (r == 0 && (n = read(WORKER_LAYER_FD(layer), u->buf, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? err_errno(err, -errno, "read the blob")
			  : decoder_put(d, u->buf, (size_t)n, err);
	}
	if (r == 0)
		r = decoder_end(d, sha, ret_bytes, err);
	decoder_free(d);
	if (r == 0)
		digest_from_sha256(sha, diff_id);
	return r;
}

static int decode_all(struct unpack *u, uint64_t *ret_bytes, struct err *err)
{
	for (size_t k = 0; k < u->n_layers; k++) {
		uint64_t bytes = 0;
		int r = decode(u, k, u->diff_ids[k], &bytes, err);

		if (r == 0) {
			r = unpack_pipe_write_end(u->tar[1], k + 1 == u->n_layers);
			if (r < 0)
				(void)!err_errno(err, r, "write the tar");
		}
		if (r < 0)
			return u->n_layers > 1 && r != -EPIPE
				       ? err_wrap(err, r, "part %zu of %zu", k + 1, u->n_layers)
				       : r;
		*ret_bytes += bytes;
	}
	return 0;
}

/* The builder's report into `rep`; if it has failed, its error. */
static int read_report(struct unpack *u, Worker__UnpackReport *rep, struct err *err)
{
	cleanup_pb_arena struct pb_arena arena;
	cleanup_buf struct buf in;
	const Worker__UnpackReport *said;
	const uint8_t *data;
	ssize_t n = 0, got = 1;
	int r;

	pb_arena_init(&arena, WIRE_REPORT_MEMORY);
	buf_init(&in, WIRE_HEADER + WIRE_MAX_SMALL);
	while (n == 0 && (got > 0 || got == -EINTR)) {
		got = buf_read_fd(&in, u->report[0], WIRE_HEADER + WIRE_MAX_SMALL - buf_len(&in));
		n = wire_next(&in, WIRE_MAX_SMALL, &data);
	}
	if (n <= 0)
		return err_set(err, -EIO,
			       "the builder died (its limit of memory or time, or a "
			       "forbidden system call)");
	r = wire_unpack_report(&arena, data, (size_t)n, &said, err);
	if (r < 0)
		return r;
	rep->reserve_reached = said->reserve_reached;
	if (said->failure)
		return wire_failure(said->failure, err);
	rep->file_bytes = said->file_bytes;
	rep->entries = said->entries;
	rep->implied = said->implied;
	rep->root = said->root;
	rep->dropped_xattrs = said->dropped_xattrs;
	return 0;
}

/*
 * After damaged data the rest of the blob is still read, so that the fetcher gets to its end and
 * finds out whether the blob itself is wrong.
 */
static int drain(struct unpack *u, int code)
{
	ssize_t n;

	if (code == -EBADMSG)
		while ((n = read(0, u->buf, CHUNK)) > 0 || (n < 0 && errno == EINTR))
			;
	return code;
}

/* When both fail, the first reason counts: a builder that gives up makes the decoder fail with
 * EPIPE. */
static int decoder_main(struct unpack *u, Worker__UnpackReport *rep, struct err *err)
{
	struct err builder_err = { 0 };
	uint64_t tar_bytes = 0;
	int r, builder;

	close(u->tar[0]);
	close(u->report[1]);
	r = confine_decode(err);
	if (r == 0)
		r = decode_all(u, &tar_bytes, err);
	if (r < 0 && r != -EPIPE)
		return drain(u, r);
	close(u->tar[1]);
	builder = read_report(u, rep, &builder_err);
	if (builder < 0) {
		*err = builder_err;
		return drain(u, builder);
	}
	rep->tar_bytes = tar_bytes;
	for (size_t k = 0; k < u->n_layers; k++)
		u->diff_id_list[k] = u->diff_ids[k];
	rep->diff_ids = u->diff_id_list;
	rep->n_diff_ids = u->n_layers;
	return r;
}

static int make_pipes(struct unpack *u, struct err *err)
{
	if (pipe2(u->tar, O_CLOEXEC) < 0 || pipe2(u->report, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	(void)fcntl(u->tar[1], F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one works, too */
	return 0;
}

/* gzip,zstd,..: one for each layer */
static int parse_kinds(struct unpack *u, const char *s)
{
	char name[8];

	for (;; s++) {
		size_t len = strcspn(s, ",");

		if (len >= sizeof(name) || u->n_layers == IMAGE_MAX_LAYERS)
			return -EINVAL;
		memcpy(name, s, len);
		name[len] = 0;
		if (media_compression_parse(name, &u->kinds[u->n_layers++]) < 0)
			return -EINVAL;
		s += len;
		if (!*s)
			return 0;
	}
}

static int parse_args(struct unpack *u, int argc, char **argv, struct err *err)
{
	int used = 4;

	if (argc >= 6 && str_eq(argv[4], "--reserve") &&
	    str_to_u64(argv[5], 0, UINT64_MAX, &u->reserve) == 0)
		used = 6;
	if (argc == used + 1 && str_eq(argv[used], "--bottom")) {
		u->bottom = true;
		used++;
	}
	if (argc != used || !str_eq(argv[0], "--layers") || !str_eq(argv[2], "--id") ||
	    parse_kinds(u, argv[1]) < 0 || digest_to_uuid(argv[3], u->uuid) < 0)
		return err_set(err, -EINVAL,
			       "unpack --layers gzip|zstd|none[,..] --id DIGEST [--reserve BYTES] "
			       "[--bottom]");
	return 0;
}

int worker_unpack(int argc, char **argv)
{
	static struct unpack u;
	const struct confine_limits limits = { .memory = WORKER_MAX_ADDRESSES,
					       .cpu_s = MAX_CPU_S,
					       .data = WORKER_MAX_DATA };
	Worker__UnpackReport rep = WORKER__UNPACK_REPORT__INIT;
	struct err err = { 0 };
	pid_t pid;
	int r = parse_args(&u, argc, argv, &err);

	if (r == 0)
		r = layer_tar_prepare(&err);
	if (r == 0)
		r = make_pipes(&u, &err);
	if (r == 0) {
		pid = fork();
		if (!pid)
			builder_main(&u);
		if (pid < 0)
			r = err_errno(&err, -errno, "fork");
	}
	close(WORKER_OUT_FD);
	if (r == 0)
		r = confine_common(&limits, &err);
	if (r == 0)
		r = decoder_main(&u, &rep, &err);
	return wire_write_unpack_report(WORKER_REPORT_FD, &rep, r, &err) < 0;
}
