/*
 * `unpack`: the decoder (this process) and the builder (its child), joined by a pipe for the tars
 * (unpack_pipe.h) and one for the builder's report.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/util.h"
#include "image/layer/decode.h"
#include "image/digest.h"
#include "image/ext4/writer.h"
#include "image/limits.h"
#include "image/layer/layer_tar.h"
#include "image/layer/unpack_pipe.h"
#include "image/ext4/tree.h"
#include "image/worker/worker.h"
#include "image/worker/confine.h"

#define PIPE_SIZE (1 * MIB)
#define CHUNK UNPACK_PIPE_CHUNK
#define MAX_CPU_S 900
/*
 * Of each process: what it allocates. With the libraries' pages that makes less than 64 MiB
 * resident. The tree of a large layer is mapped from the end of the file that is being made, with a
 * few MiB of it resident at a time (tree.h); the address space has room for all of it.
 */
#define MAX_DATA (44 * MIB)
#define MAX_ADDRESSES (1 * GIB)
#define SPOOL_OFFSET IMAGE_MAX_LAYER
#define SPOOL_MAX (1 * GIB)

struct unpack {
	enum media_compression kinds[IMAGE_MAX_LAYERS];
	size_t n_layers;
	bool bottom;
	uint8_t uuid[16];
	int tar[2];    /* decoder -> builder */
	int report[2]; /* builder -> decoder: struct build_result */
	union {
		struct unpack_pipe pipe; /* builder */
		uint8_t buf[CHUNK];	 /* decoder */
	};
};

struct build_result {
	int code;
	uint64_t file_bytes;
	uint32_t entries, dropped_xattrs;
	char text[sizeof(((struct err *)0)->msg)];
};

/* ---- builder ---- */

static ssize_t unpack_on_read(void *arg, const void **ret)
{
	return unpack_pipe_read(arg, ret);
}

static int build_layers(struct unpack *u, struct tree *t, struct ext4_writer *w, struct err *err)
{
	unpack_pipe_init(&u->pipe, unpack_pipe_read_fd, &u->tar[0]);
	for (size_t k = 0; k < u->n_layers; k++) {
		int r = k ? tree_next_layer(t, err) : 0;

		if (r == 0)
			r = layer_tar_read(unpack_on_read, &u->pipe, t, w, err);
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

static int build(struct unpack *u, struct build_result *res, struct err *err)
{
	struct ext4_writer *w = NULL;
	struct tree *t = NULL;
	int r = confine_build(err);

	if (r < 0)
		return r;
	r = tree_new(&t);
	if (r < 0)
		return err_set(err, r, "no memory");
	tree_spool(t, WORKER_OUT_FD, SPOOL_OFFSET);
	r = ext4_writer_new(WORKER_OUT_FD, u->uuid, &w, err);
	if (r >= 0)
		r = build_layers(u, t, w, err);
	if (r >= 0)
		r = ext4_writer_finish(w, t, &res->file_bytes, err);
	/* The spool is cut off now: nothing of the tree can be looked at any more. */
	if (r >= 0 && fdatasync(WORKER_OUT_FD) < 0)
		r = err_errno(err, -errno, "sync the layer's file");
	if (r == -ENOMEM)
		r = err_wrap(err, r, "more than the %zu MiB that may be used", MAX_DATA / MIB);
	res->entries = tree_entries(t);
	res->dropped_xattrs = tree_dropped_xattrs(t);
	ext4_writer_free(w);
	tree_free(t);
	return r;
}

static noreturn_fn void builder_main(struct unpack *u)
{
	const struct confine_limits limits = { MAX_ADDRESSES, SPOOL_OFFSET + SPOOL_MAX, MAX_CPU_S,
					       MAX_DATA };
	struct build_result res = { 0 };
	struct err err = { 0 };

	for (size_t k = 0; k < u->n_layers; k++)
		close(WORKER_LAYER_FD(k));
	close(1);
	close(u->tar[1]);
	close(u->report[0]);
	res.code = confine_common(&limits, &err);
	if (res.code >= 0)
		res.code = build(u, &res, &err);
	if (res.code < 0)
		snprintf(res.text, sizeof(res.text), "%s", err_text(&err));
	_exit(write_all(u->report[1], &res, sizeof(res)) < 0);
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
		return err_set(err, r, "no memory");
	while (r >= 0 && (n = read(WORKER_LAYER_FD(layer), u->buf, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? err_errno(err, -errno, "read the blob")
			  : decoder_put(d, u->buf, (size_t)n, err);
	}
	if (r >= 0)
		r = decoder_end(d, sha, ret_bytes, err);
	decoder_free(d);
	if (r >= 0)
		digest_from_sha256(sha, diff_id);
	return r;
}

static int decode_all(struct unpack *u, json_t *diff_ids, uint64_t *ret_bytes, struct err *err)
{
	for (size_t k = 0; k < u->n_layers; k++) {
		bool last = k + 1 == u->n_layers;
		char diff_id[DIGEST_LEN + 1];
		uint64_t bytes = 0;
		int r = decode(u, k, diff_id, &bytes, err);

		if (r >= 0) {
			r = unpack_pipe_write_end(u->tar[1], last);
			if (r < 0)
				(void)!err_errno(err, r, "write the tar");
		}
		if (r < 0)
			return u->n_layers > 1 && r != -EPIPE
				       ? err_wrap(err, r, "part %zu of %zu", k + 1, u->n_layers)
				       : r;
		if (json_array_append_new(diff_ids, json_string(diff_id)) < 0)
			return err_set(err, -ENOMEM, "no memory");
		*ret_bytes += bytes;
	}
	return 0;
}

static int read_result(struct unpack *u, struct build_result *res, struct err *err)
{
	size_t got = 0;

	while (got < sizeof(*res)) {
		ssize_t n = read(u->report[0], (char *)res + got, sizeof(*res) - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, -EIO,
				       "the builder died (its limit of memory or time, or a "
				       "forbidden system call)");
		got += (size_t)n;
	}
	res->text[sizeof(res->text) - 1] = 0;
	return res->code < 0 ? err_set(err, res->code, "%s", res->text) : 0;
}

/*
 * Damaged data: the rest is read all the same, so that the fetcher gets to the end of the blob and
 * can say whether it is the blob that is wrong.
 */
static int drain(struct unpack *u, int code)
{
	ssize_t n;

	if (code == -EBADMSG)
		while ((n = read(0, u->buf, CHUNK)) > 0 || (n < 0 && errno == EINTR))
			;
	return code;
}

/* The reason that came first counts: a builder that gave up makes the decoder fail with EPIPE. */
static int decoder_main(struct unpack *u, json_t **ret, struct err *err)
{
	json_t *diff_ids = json_array();
	struct build_result res = { 0 };
	struct err berr = { 0 };
	uint64_t tar_bytes = 0;
	int r, b;

	close(u->tar[0]);
	close(u->report[1]);
	r = confine_decode(err);
	if (r >= 0)
		r = decode_all(u, diff_ids, &tar_bytes, err);
	if (r < 0 && r != -EPIPE) {
		json_decref(diff_ids);
		return drain(u, r);
	}
	close(u->tar[1]);
	b = read_result(u, &res, &berr);
	if (b < 0 || r < 0) {
		json_decref(diff_ids);
		return b < 0 ? drain(u, err_set(err, b, "%s", err_text(&berr))) : r;
	}
	*ret = json_pack("{s:o, s:I, s:I, s:I, s:I}", "diff_ids", diff_ids, "tar_bytes",
			 (json_int_t)tar_bytes, "file_bytes", (json_int_t)res.file_bytes, "entries",
			 (json_int_t)res.entries, "dropped_xattrs", (json_int_t)res.dropped_xattrs);
	return *ret ? 0 : err_set(err, -ENOMEM, "no memory");
}

static int print_result(json_t *j, int code, const struct err *err)
{
	char *text;
	int r;

	if (!j)
		j = json_pack("{s:{s:i, s:s%}}", "error", "errno", code, "text", err_text(err),
			      strlen(err_text(err)));
	if (!j) /* a text that is no UTF-8 (a file name) */
		j = json_pack("{s:{s:i, s:s}}", "error", "errno", code, "text",
			      "error with a name that is no UTF-8");
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	r = text ? write_all(1, text, strlen(text)) : -ENOMEM;
	if (r >= 0)
		r = write_all(1, "\n", 1);
	free(text);
	json_decref(j);
	return r < 0;
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
	uint8_t sha[32];

	u->bottom = argc == 5 && str_eq(argv[4], "--bottom");
	if (argc != (u->bottom ? 5 : 4) || !str_eq(argv[0], "--layers") ||
	    !str_eq(argv[2], "--id") || parse_kinds(u, argv[1]) < 0 ||
	    digest_to_sha256(argv[3], sha) < 0)
		return err_set(err, -EINVAL,
			       "unpack --layers gzip|zstd|none[,..] --id DIGEST [--bottom]");
	memcpy(u->uuid, sha, sizeof(u->uuid));
	u->uuid[6] = (uint8_t)((u->uuid[6] & 0x0f) | 0x80); /* version 8: own content */
	u->uuid[8] = (uint8_t)((u->uuid[8] & 0x3f) | 0x80);
	return 0;
}

int worker_unpack(int argc, char **argv)
{
	static struct unpack u;
	const struct confine_limits limits = { MAX_ADDRESSES, 0, MAX_CPU_S, MAX_DATA };
	struct err err = { 0 };
	json_t *res = NULL;
	pid_t pid;
	int r = parse_args(&u, argc, argv, &err);

	if (r >= 0)
		r = layer_tar_prepare(&err);
	if (r >= 0)
		r = make_pipes(&u, &err);
	if (r >= 0) {
		pid = fork();
		if (!pid)
			builder_main(&u);
		if (pid < 0)
			r = err_errno(&err, -errno, "fork");
	}
	close(WORKER_OUT_FD);
	if (r >= 0)
		r = confine_common(&limits, &err);
	if (r >= 0)
		r = decoder_main(&u, &res, &err);
	return print_result(res, r, &err);
}
