#include "image/registry/sink.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

#define REPLAY_CHUNK (256 * KIB)

int sink_init(struct sink *s, const char *digest, uint64_t size, int file_fd, int pipe_fd,
	      uint64_t have, struct err *err)
{
	*s = (struct sink){ .file_fd = file_fd, .pipe_fd = pipe_fd, .size = size, .have = have };
	buf_init(&s->stash, SINK_MAX_STASH);
	if (!digest_valid(digest) || (have && file_fd < 0) || have > size) {
		sink_fini(s);
		return err_set(err, -EPROTO, "bad request for a layer");
	}
	memcpy(s->digest, digest, sizeof(s->digest));
	s->sha = EVP_MD_CTX_new();
	if (!s->sha || !EVP_DigestInit_ex(s->sha, EVP_sha256(), NULL) ||
	    (pipe_fd >= 0 && fd_set_nonblock(pipe_fd, true) < 0)) {
		sink_fini(s);
		return err_nomem(err);
	}
	return 0;
}

void sink_fini(struct sink *s)
{
	fd_close(&s->file_fd);
	fd_close(&s->pipe_fd);
	EVP_MD_CTX_free(s->sha);
	s->sha = NULL;
	buf_fini(&s->stash);
}

int sink_flush(struct sink *s, struct err *err)
{
	while (buf_len(&s->stash)) {
		ssize_t n = buf_write_fd(&s->stash, s->pipe_fd);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return 1;
		if (n < 0)
			return err_errno(err, (int)n, "hand the layer to the unpacker");
	}
	return 0;
}

/* Into the pipe as much as it takes, the rest into the stash. */
static int put_pipe(struct sink *s, const uint8_t *p, size_t len, struct err *err)
{
	if (s->pipe_fd < 0)
		return 0;
	while (len && !buf_len(&s->stash)) {
		ssize_t n = write(s->pipe_fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return err_errno(err, -errno, "hand the layer to the unpacker");
		p += n;
		len -= (size_t)n;
	}
	return len && buf_put(&s->stash, p, len) < 0 ? err_nomem(err) : 0;
}

static int pass_on(struct sink *s, const void *data, size_t len, struct err *err)
{
	if (!EVP_DigestUpdate(s->sha, data, len))
		return err_nomem(err);
	s->done += len;
	return put_pipe(s, data, len, err);
}

int sink_replay(struct sink *s, struct err *err)
{
	static uint8_t chunk[REPLAY_CHUNK];
	ssize_t n;
	int r = sink_flush(s, err);

	if (r)
		return r;
	do
		n = pread(s->file_fd, chunk, MIN_OF(sizeof(chunk), s->have - s->replayed),
			  (off_t)s->replayed);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(err, -errno, "read what was fetched before");
	if (n == 0) {
		return err_set(err, -EIO, "what was fetched before is shorter than it was");
	}
	s->replayed += (uint64_t)n;
	return pass_on(s, chunk, (size_t)n, err);
}

int sink_put(struct sink *s, const void *data, size_t len, struct err *err)
{
	check(!sink_full(s) && !sink_replays(s));
	if (len > s->size - s->done)
		return err_set(err, -EBADMSG,
			       "blob %s is larger than the %llu bytes of its manifest", s->digest,
			       (unsigned long long)s->size);
	if (s->file_fd >= 0) {
		int r = write_all(s->file_fd, data, len);

		if (r < 0)
			return err_errno(err, r, "keep the layer's bytes");
	}
	return pass_on(s, data, len, err);
}

int sink_verify(struct sink *s, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	uint8_t sha[32];

	if (!EVP_DigestFinal_ex(s->sha, sha, NULL))
		return err_nomem(err);
	digest_from_sha256(sha, digest);
	if (!str_eq(digest, s->digest))
		return err_set(err, -EBADMSG, "blob %s has the wrong digest: it is %s", s->digest,
			       digest);
	return 0;
}
