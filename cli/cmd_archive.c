/* husk save, load: images as archives. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "proto/husk.pb-c.h"

/* ---- save ---- */

struct save {
	int fd;
	int failed; /* of a write */
	uint64_t got;
	struct progress progress;
};

static int on_chunk(const ProtobufCMessage *m, void *arg)
{
	const Husk__V1__SaveChunk *chunk = (const void *)m;
	struct save *s = arg;

	s->failed = write_all(s->fd, chunk->data.data, chunk->data.len);
	s->got += chunk->data.len;
	progress_bytes(&s->progress, "saved", s->got, chunk->total, s->got == chunk->total);
	return s->failed;
}

static int save_to(struct cli *c, const Husk__V1__SaveImagesRequest *req, struct save *s,
		   const char *name, struct err *err)
{
	int r = rpc_stream(c->rpc, &husk__v1__husk__descriptor, "SaveImages", &req->base, on_chunk,
			   s, err);

	return s->failed < 0 ? err_errno(err, s->failed, "write %s", name) : r;
}

/* A file appears under its name when all of it is there. */
static int save_file(struct cli *c, const Husk__V1__SaveImagesRequest *req, const char *path,
		     struct save *s, struct err *err)
{
	cleanup_free char *part = str_fmt("%s.part", path);
	cleanup_fd int fd = -1;
	struct stat st;
	int r;

	if (!part)
		return err_errno(err, -ENOMEM, "%s", path);
	/* Something else than a file (a FIFO, /dev/null) is written as it is. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		s->fd = fd = open(path, O_WRONLY | O_CLOEXEC);
		return fd < 0 ? err_errno(err, -errno, "%s", path) : save_to(c, req, s, path, err);
	}
	s->fd = fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return err_errno(err, -errno, "%s", part);
	r = save_to(c, req, s, path, err);
	if (r == 0 && (fsync(fd) < 0 || rename(part, path) < 0))
		r = err_errno(err, -errno, "%s", path);
	if (r < 0)
		(void)unlink(part);
	return r;
}

static int run_save(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "format", required_argument, NULL, 'F' },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	Husk__V1__SaveImagesRequest req = HUSK__V1__SAVE_IMAGES_REQUEST__INIT;
	struct save s = { .fd = STDOUT_FILENO };
	enum progress_kind kind = PROGRESS_PEOPLE;
	const char *path = NULL;
	struct err err = { 0 };
	int o, r;

	while ((o = getopt_long(argc, argv, "o:q", options, NULL)) != -1) {
		if (o == 'o')
			path = optarg;
		else if (o == 'F')
			req.format = optarg;
		else if (o == 'q')
			kind = PROGRESS_NONE;
		else
			return usage_error(&cmd_save, "see the options");
	}
	if (optind == argc)
		return usage_error(&cmd_save, "which image?");
	if (path && str_eq(path, "-"))
		path = NULL;
	if (!path && isatty(STDOUT_FILENO) == 1)
		return usage_error(&cmd_save, "an archive is nothing for a terminal; use -o FILE");
	req.images = argv + optind;
	req.n_images = (size_t)(argc - optind);
	progress_init(&s.progress, kind);
	r = path ? save_file(c, &req, path, &s, &err)
		 : save_to(c, &req, &s, "standard output", &err);
	return r < 0 ? fail(1, &err) : 0;
}

const struct command cmd_save = {
	.name = "save",
	.args = "[-o FILE] [--format oci|docker-archive] [-q] IMAGE...",
	.summary = "Write images to an archive",
	.help = "  -o, --output FILE   default: standard output, when that is no terminal\n"
		"  --format F          oci: an OCI layout in a tar (default); docker-archive: one "
		"that\n"
		"                      'docker load' takes, too\n"
		"  -q, --quiet         no progress\n\n"
		"  An image that is given by a name has this name in the archive. Layers are "
		"written\n"
		"  compressed, as the registry had them.\n",
	.run = run_save,
	.needs_server = true,
};
