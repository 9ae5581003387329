/* `unpack`: the decoder (this process) and the builder (its child), joined by a pipe of tar bytes.
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
#include "image/decode.h"
#include "image/digest.h"
#include "image/ext4_writer.h"
#include "image/image.h"
#include "image/layer_tar.h"
#include "image/tree.h"
#include "image/worker.h"
#include "image/worker_confine.h"

#define PIPE_SIZE (1 * MIB)
#define CHUNK (256 * KIB)
#define MAX_CPU_S 3600

struct unpack {
	enum decode_kind kind;
	uint8_t uuid[16];
	int tar[2];    /* decoder -> builder */
	int report[2]; /* builder -> decoder: struct build_result */
	uint8_t buf[CHUNK];
};

struct build_result {
	int code;
	uint64_t file_bytes;
	char text[sizeof(((struct err *)0)->msg)];
};

/* ---- builder ---- */

static ssize_t read_tar(void *arg, const void **ret)
{
	struct unpack *u = arg;

	for (;;) {
		ssize_t n = read(u->tar[0], u->buf, CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		*ret = u->buf;
		return n < 0 ? -errno : n;
	}
}

static int build(struct unpack *u, uint64_t *ret_bytes, struct err *err)
{
	struct ext4_writer *w = NULL;
	struct tree *t = NULL;
	int r = confine_build(err);

	if (r < 0)
		return r;
	r = tree_new(&t);
	if (r < 0)
		return err_set(err, r, "no memory");
	r = ext4_writer_new(WORKER_OUT_FD, u->uuid, &w, err);
	if (r >= 0)
		r = layer_tar_read(read_tar, u, t, w, err);
	if (r >= 0)
		r = ext4_writer_finish(w, t, ret_bytes, err);
	if (r >= 0 && fdatasync(WORKER_OUT_FD) < 0)
		r = err_errno(err, -errno, "sync the layer's file");
	ext4_writer_free(w);
	tree_free(t);
	return r;
}

static noreturn_fn void builder_main(struct unpack *u)
{
	/* The tree is the only thing that grows: TREE_MAX_ENTRIES of them and their names. */
	const struct confine_limits limits = { 768 * MIB, IMAGE_MAX_LAYER, MAX_CPU_S };
	struct build_result res = { 0 };
	struct err err = { 0 };

	close(0);
	close(1);
	close(u->tar[1]);
	close(u->report[0]);
	res.code = confine_common(&limits, &err);
	if (res.code >= 0)
		res.code = build(u, &res.file_bytes, &err);
	if (res.code < 0)
		snprintf(res.text, sizeof(res.text), "%s", err_text(&err));
	_exit(write_all(u->report[1], &res, sizeof(res)) < 0);
}

/* ---- decoder ---- */

static int write_tar(void *arg, const void *data, size_t len)
{
	struct unpack *u = arg;

	return write_all(u->tar[1], data, len);
}

static int decode(struct unpack *u, char diff_id[DIGEST_LEN + 1], uint64_t *ret_bytes,
		  struct err *err)
{
	struct decoder *d = NULL;
	uint8_t sha[32];
	ssize_t n;
	int r = decoder_new(u->kind, IMAGE_MAX_LAYER, write_tar, u, &d);

	if (r < 0)
		return err_set(err, r, "no memory");
	while (r >= 0 && (n = read(0, u->buf, CHUNK)) != 0) {
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
	struct build_result res = { 0 };
	struct err berr = { 0 };
	char diff_id[DIGEST_LEN + 1];
	uint64_t tar_bytes = 0;
	int r, b;

	close(u->tar[0]);
	close(u->report[1]);
	r = confine_decode(err);
	if (r >= 0)
		r = decode(u, diff_id, &tar_bytes, err);
	if (r < 0 && r != -EPIPE) {
		/* The builder must not take the end of the pipe for the end of the tar: its file is
		 * of no use any more, whatever it says. */
		return drain(u, r);
	}
	close(u->tar[1]);
	b = read_result(u, &res, &berr);
	if (b < 0)
		return drain(u, err_set(err, b, "%s", err_text(&berr)));
	if (r < 0)
		return r;
	*ret = json_pack("{s:s, s:I, s:I}", "diff_id", diff_id, "tar_bytes", (json_int_t)tar_bytes,
			 "file_bytes", (json_int_t)res.file_bytes);
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

static int parse_args(struct unpack *u, int argc, char **argv, struct err *err)
{
	uint8_t sha[32];

	if (argc != 4 || !str_eq(argv[0], "--compression") || !str_eq(argv[2], "--diff-id") ||
	    decode_kind_parse(argv[1], &u->kind) < 0 || digest_to_sha256(argv[3], sha) < 0)
		return err_set(err, -EINVAL,
			       "unpack --compression gzip|zstd|none --diff-id DIGEST");
	memcpy(u->uuid, sha, sizeof(u->uuid));
	u->uuid[6] = (uint8_t)((u->uuid[6] & 0x0f) | 0x80); /* version 8: own content */
	u->uuid[8] = (uint8_t)((u->uuid[8] & 0x3f) | 0x80);
	return 0;
}

int worker_unpack(int argc, char **argv)
{
	static struct unpack u;
	/* The window of zstd is the largest thing the decoder may need. */
	const struct confine_limits limits = { 512 * MIB, IMAGE_MAX_LAYER, MAX_CPU_S };
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
