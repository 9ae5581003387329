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

/* ---- save ---- */

struct save {
	int fd;
	int failed; /* of a write */
	uint64_t got;
	struct progress progress;
};

static int archive_on_chunk(const ProtobufCMessage *m, void *arg)
{
	const Husk__SaveChunk *chunk = (const void *)m;
	struct save *s = arg;

	s->failed = write_all(s->fd, chunk->data.data, chunk->data.len);
	s->got += chunk->data.len;
	progress_bytes(&s->progress, "saved", s->got, chunk->total, s->got == chunk->total);
	return s->failed;
}

static int save_to(struct cli *c, const Husk__SaveImagesRequest *req, struct save *s,
		   const char *name, struct err *err)
{
	int r = rpc_stream(c->rpc, &husk__husk__descriptor, "SaveImages", &req->base,
			   archive_on_chunk, s, err);

	return s->failed < 0 ? err_errno(err, s->failed, "write %s", name) : r;
}

/* A file appears under its name when all of it is there. */
static int save_file(struct cli *c, const Husk__SaveImagesRequest *req, const char *path,
		     struct save *s, struct err *err)
{
	cleanup_free char *part = str_fmt("%s.part", path);
	cleanup_fd int fd = -1;
	struct stat st;
	int r;

	if (!part)
		return err_nomem(err);
	/* What is not a file (a FIFO, /dev/null) is written directly. */
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

static int archive_run_save(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "format", required_argument, NULL, 'F' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	Husk__SaveImagesRequest req = HUSK__SAVE_IMAGES_REQUEST__INIT;
	struct save s = { .fd = STDOUT_FILENO };
	enum progress_kind kind = PROGRESS_PEOPLE;
	const char *path = NULL;
	struct err err = { 0 };
	int o, r;

	while ((o = next_option(&cmd_save, argc, argv, ":o:q", options)) != -1) {
		if (o == 'o')
			path = optarg;
		else if (o == 'F')
			req.format = optarg;
		else if (o == 'q')
			kind = PROGRESS_NONE;
		else if (o == 'J')
			kind = PROGRESS_JSON;
		else
			return EXIT_USAGE;
	}
	if (optind == argc)
		return usage_error(&cmd_save, "no image given");
	if (path && str_eq(path, "-"))
		path = NULL;
	if (!path && isatty(STDOUT_FILENO) == 1)
		return usage_error(&cmd_save,
				   "an archive is not written to a terminal; use -o FILE");
	if (!path && kind == PROGRESS_JSON)
		return usage_error(&cmd_save, "--json needs -o FILE");
	req.images = argv + optind;
	req.n_images = (size_t)(argc - optind);
	progress_init(&s.progress, kind);
	r = path ? save_file(c, &req, path, &s, &err)
		 : save_to(c, &req, &s, "standard output", &err);
	return r < 0 ? fail(1, &err) : 0;
}

const struct command cmd_save = {
	.name = "save",
	.args = "[-o FILE] [--format oci|docker-archive] [-q | --json] IMAGE...",
	.summary = "Write images to an archive",
	.help = "  -o, --output FILE   default: standard output, when that is no terminal\n"
		"  --format F          oci: an OCI layout in a tar (default); docker-archive: one "
		"that\n"
		"                      'docker load' takes, too\n"
		"  -q, --quiet         no progress\n"
		"  --json              progress as lines of JSON; needs -o\n\n"
		"  An image that is given by a name has this name in the archive. Layers are "
		"written\n"
		"  compressed, as the registry had them.\n",
	.run = archive_run_save,
	.needs_server = true,
};

/* ---- load ---- */

#define LOAD_CHUNK (512 * KIB)

struct load {
	int fd;
	const char *from; /* for people */
	int failed;	  /* of a read */
	bool first, ended, json;
	uint64_t sent, size;
	struct progress progress, layers;
	Husk__LoadOptions options;
	Husk__LoadChunk chunk;
	uint8_t buf[2][LOAD_CHUNK]; /* one ahead, to know which chunk is the last */
	size_t len[2];
	unsigned at;
};

/* Fills a buffer up to its end, or that of the input. */
static int fill(struct load *l, unsigned k)
{
	l->len[k] = 0;
	while (!l->ended && l->len[k] < LOAD_CHUNK) {
		ssize_t n = read(l->fd, l->buf[k] + l->len[k], LOAD_CHUNK - l->len[k]);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return l->failed = -errno;
		l->ended = n == 0;
		l->len[k] += (size_t)n;
	}
	return 0;
}

static int archive_next_chunk(void *arg, const ProtobufCMessage **ret)
{
	struct load *l = arg;
	int r = 0;

	if (l->chunk.last)
		return 0;
	if (l->first)
		r = fill(l, l->at);
	else
		l->at ^= 1;
	if (r == 0)
		r = fill(l, l->at ^ 1);
	if (r < 0)
		return r;
	husk__load_chunk__init(&l->chunk);
	l->chunk.data.data = l->buf[l->at];
	l->chunk.data.len = l->len[l->at];
	l->chunk.last = l->len[l->at ^ 1] == 0;
	l->chunk.options = l->first ? &l->options : NULL;
	l->first = false;
	l->sent += l->len[l->at];
	progress_bytes(&l->progress, "sent", l->sent, l->size, l->chunk.last);
	*ret = &l->chunk.base;
	return 1;
}

static int archive_on_loaded(const ProtobufCMessage *m, void *arg)
{
	const Husk__LoadProgress *msg = (const void *)m;
	struct load *l = arg;

	if (!*msg->loaded_id) {
		progress_layers(&l->layers, msg->layers, msg->n_layers, false);
		return 0;
	}
	progress_end(&l->layers);
	if (l->json)
		return -print_json(json_pack("{s:s, s:s, s:o}", "event", "loaded", "id",
					     msg->loaded_id, "names",
					     json_strings(msg->loaded_names, msg->n_loaded_names)),
				   false);
	for (size_t i = 0; i < msg->n_loaded_names; i++)
		printf("Loaded image: %s\n", familiar_name(msg->loaded_names[i]));
	if (!msg->n_loaded_names)
		printf("Loaded image: %s\n", msg->loaded_id);
	fflush(stdout);
	return 0;
}

static int load_archive(struct cli *c, struct load *l, struct err *err)
{
	struct stat st;
	int r;

	if (fstat(l->fd, &st) == 0 && S_ISREG(st.st_mode))
		l->size = (uint64_t)st.st_size;
	l->first = true;
	r = rpc_upload(c->rpc, &husk__husk__descriptor, "LoadImages", archive_next_chunk,
		       archive_on_loaded, l, err);
	progress_end(&l->layers);
	if (l->failed < 0)
		return err_errno(err, l->failed, "read %s", l->from);
	return r < 0 ? err_wrap(err, r, "%s", l->from) : 0;
}

static int archive_run_load(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "input", required_argument, NULL, 'i' },
		{ "name", required_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	cleanup_free struct load *l = calloc(1, sizeof(*l));
	enum progress_kind kind = PROGRESS_PEOPLE;
	cleanup_fd int fd = -1;
	const char *path = NULL;
	struct err err = { 0 };
	int o;

	if (!l)
		return fail_nomem(1);
	husk__load_options__init(&l->options);
	while ((o = next_option(&cmd_load, argc, argv, ":i:n:q", options)) != -1) {
		if (o == 'i')
			path = optarg;
		else if (o == 'n')
			l->options.name = optarg;
		else if (o == 'q')
			kind = PROGRESS_NONE;
		else if (o == 'J')
			kind = PROGRESS_JSON;
		else
			return EXIT_USAGE;
	}
	if (optind < argc)
		return usage_error(&cmd_load, "unknown argument '%s'; the archive is named with -i",
				   argv[optind]);
	if (path && str_eq(path, "-"))
		path = NULL;
	if (!path && isatty(STDIN_FILENO) == 1)
		return usage_error(&cmd_load,
				   "no archive given; use -i FILE, or redirect standard input");
	if (path) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			(void)err_errno(&err, -errno, "%s", path);
			return fail(1, &err);
		}
	}
	l->fd = path ? fd : STDIN_FILENO;
	l->from = path ? path : "standard input";
	l->json = kind == PROGRESS_JSON;
	progress_init(&l->progress, kind == PROGRESS_JSON ? PROGRESS_NONE : kind);
	progress_init(&l->layers, kind);
	return load_archive(c, l, &err) < 0 ? fail(1, &err) : 0;
}

const struct command cmd_load = {
	.name = "load",
	.args = "[-i FILE] [--name NAME] [-q | --json]",
	.summary = "Take images from an archive",
	.help = "  -i, --input FILE   default: standard input, when that is no terminal\n"
		"  -n, --name NAME    for the only image of an archive that gives it no name\n"
		"  -q, --quiet        no progress\n"
		"  --json             progress and results as lines of JSON\n\n"
		"  The archive is an OCI layout in a tar, or what 'docker save' writes; gzip or "
		"zstd\n"
		"  around it is taken off. All digests are checked.\n",
	.run = archive_run_load,
	.needs_server = true,
};
