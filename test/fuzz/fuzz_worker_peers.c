/*
 * huskd's ends of its workers, with a worker that was taken over: the first byte says which of them
 * (fetcher, unpacker, checker), the rest is what the process writes before it dies. Each request
 * must end at most once and by an answer of its kind, each report once, and nothing may come after
 * the end. The process itself is left out: its functions are those below.
 */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/hosts.h"
#include "image/job/checker.h"
#include "image/job/fetcher.h"
#include "image/job/proc.h"
#include "image/job/unpacker.h"
#include "image/wire.h"
#include "image/worker/worker.h"

#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define INPUT_MAX (128 * KIB) /* what a socket or a pipe takes at once */
#define FILES 4u

struct proc {
	int fd; /* what the worker writes to */
};

static struct proc worker;

int proc_start(struct procs *ps, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *, int), void *owner, struct proc **ret, struct err *err)
{
	worker.fd = fcntl(str_eq(args[0], "fetch") ? fds[0] : fds[WORKER_REPORT_FD],
			  F_DUPFD_CLOEXEC, 3);
	*ret = &worker;
	return worker.fd < 0 ? err_errno(err, -errno, "dup") : 0;
}

void proc_drop(struct proc *p)
{
}

int proc_err_died(const char *mode, int code, struct err *err)
{
	return err_set(err, code, "died");
}

int proc_err_lost(const char *mode, int why, int code, struct err *err)
{
	return err_set(err, code, "lost");
}

int proc_err_protocol(const char *mode, struct err *err)
{
	return err_set(err, -EPROTO, "protocol");
}

/* ---- the owner ---- */

enum answer { NONE, DOCUMENT, IMAGES, DONE, PUSHED };

static struct owner {
	enum answer wanted[8]; /* by id; NONE: not under way */
	bool over;
	size_t reports;
} owner;

static void end(uint32_t id, enum answer a)
{
	fuzz_assert(!owner.over);
	fuzz_assert(id && id < ARRAY_SIZE(owner.wanted) && owner.wanted[id] == a && a != NONE);
	owner.wanted[id] = NONE;
}

static void peers_on_document(void *arg, uint32_t id, const void *data, size_t len)
{
	fuzz_assert(len <= IMAGE_MAX_DOCUMENT);
	end(id, DOCUMENT);
}

static void peers_on_images(void *arg, uint32_t id, const struct Worker__Images *images)
{
	end(id, IMAGES);
}

static void peers_on_done(void *arg, uint32_t id, uint64_t bytes)
{
	end(id, DONE);
}

static void peers_on_pushed(void *arg, uint32_t id, enum fetcher_pushed how)
{
	fuzz_assert(how <= FETCHER_MOUNTED);
	end(id, PUSHED);
}

static void peers_on_progress(void *arg, uint32_t id, uint64_t bytes)
{
	fuzz_assert(!owner.over && id < ARRAY_SIZE(owner.wanted) && owner.wanted[id] != NONE);
}

static void peers_on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	fuzz_assert(code < 0 && code == err->code && *err->msg);
	fuzz_assert(!owner.over);
	if (id)
		end(id, id < ARRAY_SIZE(owner.wanted) ? owner.wanted[id] : NONE);
	else
		owner.over = true;
}

static void peers_on_report(void *arg, int code, const char *digest, const struct err *err)
{
	fuzz_assert(!owner.over);
	fuzz_assert(code == 0 ? digest_valid(digest) : code < 0 && code == err->code);
	owner.reports++;
}

/* ---- the worker's life ---- */

/* Its last words are whatever fits: what is cut is one more thing that can happen. */
static void say(const uint8_t *data, size_t size)
{
	(void)fcntl(worker.fd, F_SETFL, O_NONBLOCK);
	(void)fcntl(worker.fd, F_SETPIPE_SZ, INPUT_MAX);
	(void)!write(worker.fd, data, size);
	fd_close(&worker.fd);
}

static void run(struct loop *loop)
{
	for (int k = 0; k < 64 && loop_once(loop, 0) > 0; k++)
		;
}

static void fuzz_fetcher(struct loop *loop, struct procs *ps, const uint8_t *data, size_t size)
{
	static const struct fetcher_ops ops = {
		.document = peers_on_document,
		.images = peers_on_images,
		.done = peers_on_done,
		.pushed = peers_on_pushed,
		.progress = peers_on_progress,
		.error = peers_on_error,
	};
	const struct fetcher_layer layer = { .digest = DIGEST_A, .file_fd = -1, .pipe_fd = -1 };
	const struct fetcher_push push = { .repository = "r", .digest = DIGEST_A, .fd = -1 };
	struct hosts hosts = { 0 };
	const struct fetcher_options o = { .host = "h", .hosts = &hosts };
	struct fetcher *f;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	fuzz_assert(fetcher_new(ps, &o, &ops, NULL, &f, NULL) == 0);
	fuzz_assert(fetcher_manifest(f, 1, "r", "latest", NULL) == 0);
	fuzz_assert(fetcher_blob(f, 2, "r", DIGEST_A, 5, NULL) == 0);
	fuzz_assert(fetcher_list(f, 3, null, NULL) == 0);
	fuzz_assert(fetcher_layer(f, 4, "r", &layer, NULL) == 0);
	fuzz_assert(fetcher_push(f, 5, &push, NULL) == 0);
	fuzz_assert(fetcher_ping(f, 6, NULL) == 0);
	owner = (struct owner){ .wanted = { NONE, DOCUMENT, DOCUMENT, IMAGES, DONE, PUSHED,
					    DONE } };
	say(data, size);
	run(loop);
	fuzz_assert(owner.over); /* it is dead, after all */
	fetcher_free(f);
	close(null);
}

static void fuzz_unpacker(struct loop *loop, struct procs *ps, const uint8_t *data, size_t size)
{
	cleanup_free char *path = str_fmt("/tmp/fuzz-worker-peers-%d", (int)getpid());
	struct unpacker *u;
	int fd = -1;

	fuzz_assert(path && unpacker_new(ps, path, MEDIA_GZIP, DIGEST_A, 0, peers_on_report, NULL,
					 &u, &fd, NULL) == 0);
	close(fd);
	say(data, size);
	run(loop);
	fuzz_assert(owner.reports == 1);
	unpacker_free(u);
}

static void fuzz_checker(struct loop *loop, struct procs *ps, const uint8_t *data, size_t size)
{
	struct checker_file files[FILES] = { 0 };
	struct checker *c;

	fuzz_assert(checker_new(ps, files, FILES, false, peers_on_report, NULL, &c, NULL) == 0);
	say(data, size);
	run(loop);
	/* Each file, or those before the first that failed for all that are left. */
	fuzz_assert(owner.reports >= 1 && owner.reports <= FILES);
	checker_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(struct loop * loop, struct procs * ps, const uint8_t *data,
				     size_t size) = { fuzz_fetcher, fuzz_unpacker, fuzz_checker };
	static struct loop *loop;
	struct procs ps = { 0 };

	if (!loop && loop_new(&loop, NULL) < 0)
		return 0;
	if (!size || size > INPUT_MAX)
		return 0;
	ps.loop = loop;
	owner = (struct owner){ 0 };
	kinds[data[0] % 3](loop, &ps, data + 1, size - 1);
	return 0;
}
