/* `archive`: as `fetch`, but the registry is a tar of images. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/util.h"
#include "image/worker/archive_source.h"
#include "image/layer/decode.h"
#include "image/limits.h"
#include "image/worker/worker.h"
#include "image/wire.h"
#include "image/worker/channel.h"
#include "image/worker/confine.h"

#define CHUNK (256 * KIB)
#define PROGRESS_NS (100 * NS_PER_MS)
#define MAX_CPU_S 3600
/* How many times its size a compressed archive may become, beyond EXPANSION_FREE. (gzip can reach
 * 1000.) */
#define MAX_EXPANSION 64u
#define EXPANSION_FREE (256 * MIB)

struct source {
	struct channel ch;
	int fd; /* the archive */
	struct archive *archive;
	uint8_t buf[CHUNK], there[CHUNK];
};

static ssize_t archive_on_read(void *arg, void *buf, size_t n, uint64_t offset)
{
	const struct source *s = arg;

	for (;;) {
		ssize_t k = pread(s->fd, buf, n, (off_t)offset);

		if (k >= 0 || errno != EINTR)
			return k < 0 ? -errno : k;
	}
}

static int open_archive(struct source *s, struct err *err)
{
	struct stat st;

	if (s->archive)
		return 0;
	if (fstat(s->fd, &st) < 0)
		return err_errno(err, -errno, "the archive");
	return archive_open(archive_on_read, s, (uint64_t)st.st_size, &s->archive, err);
}

/* ---- which images there are; a compressed archive is expanded first ---- */

static int archive_on_expanded(void *arg, const void *data, size_t len)
{
	return write_all(*(const int *)arg, data, len);
}

static int expand(struct source *s, enum media_compression kind, uint64_t size, int out,
		  struct err *err)
{
	uint64_t max = size * MAX_EXPANSION + EXPANSION_FREE, at = 0, bytes;
	struct decoder *d = NULL;
	uint8_t sum[32];
	ssize_t n = 0;
	int r = decoder_new(kind, MIN_OF(max, IMAGE_MAX_LAYER), archive_on_expanded, &out, &d);

	if (r < 0)
		return err_nomem(err);
	while (r == 0 && (n = archive_on_read(s, s->buf, CHUNK, at)) > 0) {
		r = decoder_put(d, s->buf, (size_t)n, err);
		at += (uint64_t)n;
	}
	if (r == 0 && n < 0)
		r = err_errno(err, (int)n, "read the archive");
	if (r == 0)
		r = decoder_end(d, sum, &bytes, err);
	decoder_free(d);
	if (r == -EFBIG)
		return err_set(err, r,
			       "the archive is compressed and would become more than %u times as "
			       "large: decompress it yourself if that is right",
			       MAX_EXPANSION);
	return r < 0 ? err_wrap(err, r, "expand the archive") : 0;
}

/* If the archive is compressed, `out` gets the tar and becomes the archive: *ret_expanded. */
static int expand_if_needed(struct source *s, int out, bool *ret_expanded, struct err *err)
{
	static const struct {
		const char *magic, *name;
		size_t len;
		enum media_compression kind;
	} kinds[] = {
		{ "\x1f\x8b", "gzip", 2, MEDIA_GZIP },
		{ "\x28\xb5\x2f\xfd", "zstd", 4, MEDIA_ZSTD },
		{ "\xfd"
		  "7zXZ",
		  "xz", 5, MEDIA_PLAIN },
		{ "BZh", "bzip2", 3, MEDIA_PLAIN },
		{ "PK\x03\x04", "zip", 4, MEDIA_PLAIN },
	};
	struct stat st;
	uint8_t head[8] = { 0 };
	ssize_t n = archive_on_read(s, head, sizeof(head), 0);

	if (n < 0 || fstat(s->fd, &st) < 0)
		return err_errno(err, n < 0 ? (int)n : -errno, "read the archive");
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		int r;

		if (memcmp(head, kinds[k].magic, kinds[k].len) != 0)
			continue;
		if (kinds[k].kind == MEDIA_PLAIN)
			return err_set(err, -ENOTSUP,
				       "the archive is compressed by %s; gzip, zstd or none "
				       "can be read",
				       kinds[k].name);
		r = expand(s, kinds[k].kind, (uint64_t)st.st_size, out, err);
		if (r < 0)
			return r;
		fd_close(&s->fd);
		s->fd = fcntl(out, F_DUPFD_CLOEXEC, 3);
		*ret_expanded = true;
		return s->fd < 0 ? err_errno(err, -errno, "the archive") : 0;
	}
	return 0;
}

static int send_images(struct source *s, uint32_t id, bool expanded, struct err *err)
{
	Worker__Images list = WORKER__IMAGES__INIT;
	Worker__Event e = WORKER__EVENT__INIT;
	const struct archive_image *images = archive_images(s->archive, &list.n_images);
	cleanup_free Worker__Images__Image *v = calloc(list.n_images + 1, sizeof(*v));
	cleanup_free Worker__Images__Image **pointers =
		calloc(list.n_images + 1, sizeof(*pointers));

	if (!v || !pointers)
		return err_nomem(err);
	for (size_t k = 0; k < list.n_images; k++) {
		worker__images__image__init(&v[k]);
		v[k].digest = (char *)images[k].digest;
		v[k].names = images[k].names;
		v[k].n_names = strv_len(images[k].names);
		pointers[k] = &v[k];
	}
	list.expanded = expanded;
	list.images = pointers;
	if (worker__images__get_packed_size(&list) > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "the archive has too many images and names");
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_IMAGES;
	e.images = &list;
	channel_send(&s->ch, &e);
	return 0;
}

static int archive_list(struct source *s, const Worker__Command *c, struct err *err)
{
	cleanup_fd int out = channel_take_fd(&s->ch);
	bool expanded = false;
	int r = s->archive ? 0 : expand_if_needed(s, out, &expanded, err);

	if (r == 0)
		r = open_archive(s, err);
	return r < 0 ? r : send_images(s, c->id, expanded, err);
}

/* ---- documents ---- */

static int send_document(struct source *s, uint32_t id, const char *digest, struct err *err)
{
	cleanup_free char *data = NULL;
	struct archive_blob b;
	int r = open_archive(s, err);

	if (r == 0)
		r = archive_blob(s->archive, digest, &b, err);
	if (r < 0)
		return r;
	if (b.size > IMAGE_MAX_DOCUMENT)
		return err_set(err, -EFBIG, "%s has more than %zu MiB", digest,
			       IMAGE_MAX_DOCUMENT / MIB);
	if (!b.bytes) {
		data = malloc(b.size + 1);
		if (!data)
			return err_nomem(err);
		for (uint64_t at = 0; at < b.size;) {
			ssize_t n = archive_on_read(s, data + at, b.size - at, b.offset + at);

			if (n <= 0)
				return err_set(err, n < 0 ? (int)n : -EBADMSG, "read the archive");
			at += (uint64_t)n;
		}
		b.bytes = data;
	}
	channel_send_document(&s->ch, id, b.bytes, b.size);
	return 0;
}

static int archive_manifest(struct source *s, const Worker__Command *c, struct err *err)
{
	return send_document(s, c->id, c->manifest->reference, err);
}

static int archive_document(struct source *s, const Worker__Command *c, struct err *err)
{
	return send_document(s, c->id, c->blob->digest, err);
}

/* ---- layers ---- */

struct layer {
	uint32_t id;
	const char *digest;
	uint64_t size;
	uint64_t have; /* bytes that the file has, and that match the archive so far */
	int file, pipe;
	EVP_MD_CTX *hash;
	uint64_t progress_ns;
};

/* The first `have` bytes of the file are from before. They stay as long as the archive has the
 * same; from the first difference on they are written again. */
static int put_file(struct source *s, struct layer *l, size_t n, uint64_t at, struct err *err)
{
	size_t same = 0;
	ssize_t k;
	int r = 0;

	if (l->file < 0)
		return 0;
	if (at < l->have) {
		same = (size_t)MIN_OF((uint64_t)n, l->have - at);
		k = pread(l->file, s->there, same, (off_t)at);
		if (k != (ssize_t)same || memcmp(s->there, s->buf, same) != 0) {
			same = 0;
			l->have = at;
			r = ftruncate(l->file, (off_t)at) < 0 ? -errno : 0;
		}
	}
	if (r == 0 && same < n)
		r = write_all(l->file, s->buf + same, n - same);
	return r < 0 ? err_errno(err, r, "write the blob") : 0;
}

static int put_chunk(struct source *s, struct layer *l, size_t n, uint64_t at, struct err *err)
{
	int r = put_file(s, l, n, at, err);

	if (r == 0 && EVP_DigestUpdate(l->hash, s->buf, n) != 1)
		r = err_nomem(err);
	if (r == 0 && l->pipe >= 0 && write_all(l->pipe, s->buf, n) < 0)
		fd_close(&l->pipe); /* the reader has ended, and reports why itself */
	if (r == 0 && now_mono_ns() - l->progress_ns > PROGRESS_NS) {
		l->progress_ns = now_mono_ns();
		channel_send_progress(&s->ch, l->id, at + n);
	}
	return r;
}

static int copy_layer(struct source *s, struct layer *l, const struct archive_blob *b,
		      struct err *err)
{
	char found[DIGEST_LEN + 1];
	uint8_t sum[32];
	int r = 0;

	if (b->size != l->size || b->bytes)
		return err_set(err, -EBADMSG, "it has %llu bytes in the archive, not %llu",
			       (unsigned long long)b->size, (unsigned long long)l->size);
	for (uint64_t at = 0; r == 0 && at < b->size && !s->ch.broken;) {
		ssize_t n = archive_on_read(
			s, s->buf, (size_t)MIN_OF((uint64_t)CHUNK, b->size - at), b->offset + at);

		if (n <= 0)
			return err_set(err, n < 0 ? (int)n : -EBADMSG, "read the archive");
		r = put_chunk(s, l, (size_t)n, at, err);
		at += (uint64_t)n;
	}
	if (r < 0)
		return r;
	if (EVP_DigestFinal_ex(l->hash, sum, NULL) != 1)
		return err_nomem(err);
	digest_from_sha256(sum, found);
	return str_eq(found, l->digest)
		       ? 0
		       : err_set(err, -EBADMSG, "its bytes in the archive have the digest %s",
				 found);
}

static int archive_layer(struct source *s, const Worker__Command *c, struct err *err)
{
	struct layer l = {
		.id = c->id,
		.digest = c->layer->digest,
		.size = c->layer->size,
		.have = c->layer->have,
		.file = c->layer->file ? channel_take_fd(&s->ch) : -1,
		.pipe = -1,
		.hash = EVP_MD_CTX_new(),
	};
	struct archive_blob b;
	int r = open_archive(s, err);

	if (c->layer->pipe)
		l.pipe = channel_take_fd(&s->ch);
	if (r == 0 && (!l.hash || EVP_DigestInit_ex(l.hash, EVP_sha256(), NULL) != 1))
		r = err_nomem(err);
	if (r == 0)
		r = archive_blob(s->archive, l.digest, &b, err);
	if (r == 0)
		r = copy_layer(s, &l, &b, err);
	if (r == 0)
		channel_send_done(&s->ch, c->id, l.size);
	fd_close(&l.file);
	fd_close(&l.pipe);
	EVP_MD_CTX_free(l.hash);
	return r;
}

/* ---- commands ---- */

#define CASE(c) WORKER__COMMAND__COMMAND_##c

/* A failing request is answered by a Failure; an error that is returned ends the process. */
static int archive_command(struct source *s, const Worker__Command *c, struct err *err)
{
	static int (*const handlers[])(struct source * s, const Worker__Command *c,
				       struct err *err) = {
		[CASE(MANIFEST)] = archive_manifest,
		[CASE(BLOB)] = archive_document,
		[CASE(LAYER)] = archive_layer,
		[CASE(LIST)] = archive_list,
	};
	struct err why = { 0 };
	int r;

	if ((c->command_case == CASE(OPEN)) != (s->fd < 0))
		return err_set(err, -EPROTO, "the first command is Open, and no other one is");
	if (c->command_case == CASE(OPEN)) {
		s->fd = channel_take_fd(&s->ch);
		return 0;
	}
	if (c->command_case >= ARRAY_SIZE(handlers) || !handlers[c->command_case])
		return err_set(err, -EPROTO, "command %d is not for archive", (int)c->command_case);
	r = handlers[c->command_case](s, c, &why);
	if (r < 0)
		channel_send_failure(&s->ch, c->id, r, false, &why);
	return 0;
}
#undef CASE

int worker_archive(void)
{
	const struct confine_limits limits = { 1 * GIB, IMAGE_MAX_LAYER, MAX_CPU_S };
	static struct source s;
	struct err err = { 0 };
	int r = confine_common(&limits, &err);

	s.fd = -1;
	channel_init(&s.ch);
	if (r == 0)
		r = confine_archive(&err);
	while (r == 0 && !s.ch.eof && !s.ch.broken) {
		const Worker__Command *c;

		r = channel_next(&s.ch, &c, &err);
		if (r == 0)
			r = c ? archive_command(&s, c, &err) : channel_receive(&s.ch, true, &err);
	}
	if (r < 0)
		channel_send_failure(&s.ch, 0, r, false, &err);
	archive_close(s.archive);
	channel_fini(&s.ch);
	return r < 0;
}
