/*
 * The image library by hand, for the tests in this folder: image-tool DIR COMMAND, one store each.
 *	pull REF [USER PASSWORD]	prints the id; progress with IMAGE_TOOL_PROGRESS=1
 *	pull-many REF...		all at once, in one process
 *	pull-cancel REF MS		cancelled after so many milliseconds
 *	pull-two REF MS			two at once, the first is cancelled
 *	list [REF]	get REF		rm REF
 *	layers ID			hold ID HOLDER		release HOLDER
 *	scratch PATH			df
 *	load FILE [NAME]		prints ids and names
 *	save FILE REF			in Docker's form
 *	tag REF NAME	untag REF	prune dangling|all|blobs	verify [REF...]
 * image-tool report: what husk-image-worker unpack has said, from standard input, as "ok
 * tar_bytes=N .. DIFF-ID.." or "error CODE TEXT".
 * Errors: "error CODE TEXT" on standard error, exit 1. IMAGE_TOOL_ARCH: another architecture,
 * IMAGE_TOOL_HOSTS: certs.d, IMAGE_TOOL_RETRY_MS and IMAGE_TOOL_STALL_S: patience,
 * IMAGE_TOOL_IDENTITY, _TOKEN and _SERVER: credentials.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/image.h"
#include "image/wire.h"

struct pulls {
	struct loop *loop;
	struct image_pull *handle;
	int left, failed;
};

static int failure(const struct err *err)
{
	fprintf(stderr, "error %d %s\n", err->code, err_text(err));
	return 1;
}

static void on_progress(void *arg, const struct image_progress *p)
{
	static const char *const states[] = { "waiting", "fetching", "unpacking", "done",
					      "shared" };

	for (size_t k = 0; k < p->n_layers; k++)
		printf("%s%.15s %s %llu/%llu", k ? " | " : "", p->layers[k].digest,
		       states[p->layers[k].state], (unsigned long long)p->layers[k].fetched,
		       (unsigned long long)p->layers[k].size);
	puts("");
}

static void on_done(void *arg, int code, const struct image_pull_result *r, const struct err *err)
{
	struct pulls *p = arg;

	p->handle = NULL;
	if (code < 0)
		p->failed = failure(err);
	else
		printf("%s fetch_ms=%.1f total_ms=%.1f\n", r->id, (double)r->fetch_ns / 1e6,
		       (double)r->total_ns / 1e6);
	if (--p->left == 0)
		loop_stop(p->loop, 0);
}

static void on_cancel(struct ev_timer *t)
{
	struct pulls *p = t->arg;

	if (p->handle)
		image_pull_cancel(p->handle);
	puts("cancelled");
	loop_stop(p->loop, 0);
}

static void on_cancel_first(struct ev_timer *t)
{
	struct pulls *p = t->arg;

	if (p->handle)
		image_pull_cancel(p->handle);
	puts("cancelled");
}

static int pull(struct loop *l, struct image_store *s, char **refs, int n,
		const struct image_auth *auth, int cancel_ms)
{
	struct pulls p = { .loop = l };
	struct ev_timer t = { 0 };
	struct err err = { 0 };

	for (int k = 0; k < n; k++) {
		if (image_pull(s, refs[k], auth, getenv("IMAGE_TOOL_PROGRESS") ? on_progress : NULL,
			       on_done, &p, &p.handle, &err) < 0)
			return failure(&err);
		p.left++;
	}
	if (cancel_ms >= 0 &&
	    ev_timer_add(l, &t, (uint64_t)cancel_ms * NS_PER_MS, on_cancel, &p) < 0)
		return 1;
	if (loop_run(l) < 0)
		return 1;
	ev_timer_del(&t);
	return p.failed;
}

/* Two pulls of one image; the first is cancelled after `ms`, the second goes on. */
static int pull_two(struct loop *l, struct image_store *s, const char *ref, int ms)
{
	struct pulls first = { .loop = l, .left = 2 }, second = { .loop = l, .left = 1 };
	struct ev_timer t = { 0 };
	struct err err = { 0 };

	if (image_pull(s, ref, NULL, NULL, on_done, &first, &first.handle, &err) < 0 ||
	    image_pull(s, ref, NULL, NULL, on_done, &second, &second.handle, &err) < 0)
		return failure(&err);
	if (ev_timer_add(l, &t, (uint64_t)ms * NS_PER_MS, on_cancel_first, &first) < 0 ||
	    loop_run(l) < 0)
		return 1;
	ev_timer_del(&t);
	return second.failed;
}

static void print_info(const struct image_info *i)
{
	printf("%s size=%llu user=%s%lld tags=", i->id, (unsigned long long)i->size, i->username,
	       i->has_uid ? (long long)i->uid : -1ll);
	for (char **v = i->repo_tags; *v; v++)
		printf("%s%s", v == i->repo_tags ? "" : ",", *v);
	printf(" digests=");
	for (char **v = i->repo_digests; *v; v++)
		printf("%s%s", v == i->repo_digests ? "" : ",", *v);
	printf(" cmd=");
	for (char **v = i->config.cmd; *v; v++)
		printf("%s%s", v == i->config.cmd ? "" : ",", *v);
	printf(" chain=%s\n", i->chain_id);
}

static int list(struct image_store *s, const char *ref)
{
	struct image_info **v;
	struct err err = { 0 };
	size_t n;

	if (image_list(s, ref, &v, &n, &err) < 0)
		return failure(&err);
	for (size_t k = 0; k < n; k++)
		print_info(v[k]);
	image_list_free(v, n);
	return 0;
}

static int get(struct image_store *s, const char *ref)
{
	cleanup_image_info struct image_info *i = NULL;
	struct err err = { 0 };

	if (image_get(s, ref, &i, &err) < 0)
		return failure(&err);
	print_info(i);
	return 0;
}

static int layers(struct image_store *s, const char *id)
{
	cleanup_strv char **v = NULL;
	struct err err = { 0 };

	if (image_layers(s, id, &v, &err) < 0)
		return failure(&err);
	for (char **p = v; *p; p++)
		puts(*p);
	return 0;
}

static int df(struct image_store *s)
{
	struct image_fs_usage u;
	struct err err = { 0 };

	if (image_fs_info(s, &u, &err) < 0)
		return failure(&err);
	printf("%s bytes=%llu inodes=%llu\n", u.mountpoint, (unsigned long long)u.used_bytes,
	       (unsigned long long)u.inodes_used);
	return 0;
}

static int tag(struct image_store *s, const char *ref, const char *name)
{
	cleanup_free char *full = NULL;
	struct err err = { 0 };

	if (image_tag(s, ref, name, &full, &err) < 0)
		return failure(&err);
	puts(full);
	return 0;
}

static int untag(struct image_store *s, const char *ref)
{
	struct image_untagged u;
	struct err err = { 0 };

	if (image_untag(s, ref, false, &u, &err) < 0)
		return failure(&err);
	for (char **n = u.names; *n; n++)
		printf("untagged %s\n", *n);
	if (u.deleted)
		printf("deleted %s\n", u.deleted);
	image_untagged_fini(&u);
	return 0;
}

static int prune(struct image_store *s, const char *what)
{
	const struct image_prune_options o = { .dangling = str_eq(what, "dangling"),
					       .all = str_eq(what, "all"),
					       .blobs = str_eq(what, "blobs") };
	struct image_pruned p;
	struct err err = { 0 };

	if (image_prune(s, &o, &p, &err) < 0)
		return failure(&err);
	printf("images=%zu layers=%llu blobs=%llu bytes=%llu\n", strv_len(p.images),
	       (unsigned long long)p.layers, (unsigned long long)p.blobs,
	       (unsigned long long)p.bytes);
	image_pruned_fini(&p);
	return 0;
}

struct verify {
	struct loop *loop;
	int result;
};

static void on_object(void *arg, const struct image_verified *v)
{
	printf("%s %s %zu/%zu %s\n", v->kind, v->digest, v->done, v->total,
	       v->problem ? v->problem : "ok");
	for (char *const *i = v->images; i && *i; i++)
		printf("\tof image %s\n", *i);
}

static void on_verified(void *arg, int code, size_t problems, const struct err *err)
{
	struct verify *v = arg;

	v->result = code < 0 ? failure(err) : problems ? 1 : 0;
	loop_stop(v->loop, 0);
}

static int verify(struct loop *l, struct image_store *s, char *const *refs)
{
	struct verify v = { .loop = l };
	struct image_verify *handle;
	struct err err = { 0 };

	if (image_verify(s, refs, on_object, on_verified, &v, &handle, &err) < 0)
		return failure(&err);
	return loop_run(l) < 0 ? 1 : v.result;
}

static int result_of_scratch;

static void on_scratch(void *arg, int code, const struct err *err)
{
	result_of_scratch = code < 0 ? failure(err) : 0;
	loop_stop(arg, 0);
}

static int scratch(struct image_store *s, struct loop *l, const char *path)
{
	struct err err = { 0 };
	uint64_t t = now_mono_ns();

	if (image_scratch_create(s, path, on_scratch, l, &err) < 0)
		return failure(&err);
	if (loop_run(l) < 0 || result_of_scratch)
		return 1;
	printf("scratch_us=%.0f\n", (double)(now_mono_ns() - t) / 1e3);
	return 0;
}

/* ---- archives ---- */

struct load {
	struct loop *loop;
	int result;
};

static void on_image_loaded(void *arg, const char *id, char *const *names)
{
	printf("%s", id);
	for (; *names; names++)
		printf(" %s", *names);
	puts("");
}

static void on_load_done(void *arg, int code, const struct err *err)
{
	struct load *l = arg;

	l->result = code < 0 ? failure(err) : 0;
	loop_stop(l->loop, 0);
}

static int load(struct loop *loop, struct image_store *s, const char *path, const char *name)
{
	const struct image_load_ops ops = { .loaded = on_image_loaded, .done = on_load_done };
	struct load state = { .loop = loop };
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct image_load *l = NULL;
	struct err err = { 0 };
	static char buf[MIB];
	ssize_t n = 0;
	int r = fd < 0 ? err_errno(&err, -errno, "%s", path)
		       : image_load_new(s, name, &ops, &state, &l, &err);

	while (r == 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		r = image_load_put(l, buf, (size_t)n, &err);
	if (r == 0)
		r = n < 0 ? err_errno(&err, -errno, "%s", path) : image_load_start(l, &err);
	if (r < 0) {
		image_load_cancel(l);
		return failure(&err);
	}
	return loop_run(loop) < 0 ? 1 : state.result;
}

static int save(struct image_store *s, const char *path, char *ref)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct image_save *v = NULL;
	struct err err = { 0 };
	static char buf[MIB];
	ssize_t n = 0;
	int r = fd < 0 ? err_errno(&err, -errno, "%s", path)
		       : image_save_open(s, &ref, 1, IMAGE_ARCHIVE_DOCKER, &v, &err);

	while (r == 0 && (n = image_save_read(v, buf, sizeof(buf), &err)) > 0)
		r = write_all(fd, buf, (size_t)n);
	image_save_free(v);
	return r < 0 || n < 0 ? failure(&err) : 0;
}

static int command(struct loop *l, struct image_store *s, char **a, int n)
{
	struct err err = { 0 };
	int r;

	if (n == 2 && str_eq(a[0], "pull")) {
		struct image_auth auth = { .identity_token = getenv("IMAGE_TOOL_IDENTITY"),
					   .registry_token = getenv("IMAGE_TOOL_TOKEN"),
					   .server_address = getenv("IMAGE_TOOL_SERVER") };
		return pull(l, s, a + 1, 1, &auth, -1);
	}
	if (n == 4 && str_eq(a[0], "pull")) {
		struct image_auth auth = { .username = a[2],
					   .password = a[3],
					   .server_address = getenv("IMAGE_TOOL_SERVER") };
		return pull(l, s, a + 1, 1, &auth, -1);
	}
	if (n >= 2 && str_eq(a[0], "pull-many"))
		return pull(l, s, a + 1, n - 1, NULL, -1);
	int64_t cancel_ms;
	if (n == 3 && str_eq(a[0], "pull-cancel") && str_to_i64(a[2], 0, 60000, &cancel_ms) == 0)
		return pull(l, s, a + 1, 1, NULL, (int)cancel_ms);
	if (n == 3 && str_eq(a[0], "pull-two") && str_to_i64(a[2], 0, 60000, &cancel_ms) == 0)
		return pull_two(l, s, a[1], (int)cancel_ms);
	if (str_eq(a[0], "list"))
		return list(s, n > 1 ? a[1] : NULL);
	if (n == 2 && str_eq(a[0], "get"))
		return get(s, a[1]);
	if (n == 2 && str_eq(a[0], "layers"))
		return layers(s, a[1]);
	if (n == 1 && str_eq(a[0], "df"))
		return df(s);
	if (n >= 2 && n <= 3 && str_eq(a[0], "load"))
		return load(l, s, a[1], n == 3 ? a[2] : NULL);
	if (n == 3 && str_eq(a[0], "save"))
		return save(s, a[1], a[2]);
	if (n == 3 && str_eq(a[0], "tag"))
		return tag(s, a[1], a[2]);
	if (n == 2 && str_eq(a[0], "untag"))
		return untag(s, a[1]);
	if (n == 2 && str_eq(a[0], "prune"))
		return prune(s, a[1]);
	if (n >= 1 && str_eq(a[0], "verify"))
		return verify(l, s, a + 1);
	if (n == 2 && str_eq(a[0], "scratch"))
		return scratch(s, l, a[1]);
	if (n == 2 && str_eq(a[0], "rm"))
		r = image_remove(s, a[1], &err);
	else if (n == 3 && str_eq(a[0], "hold"))
		r = image_hold(s, a[1], a[2], &err);
	else if (n == 2 && str_eq(a[0], "release"))
		r = image_release(s, a[1], &err);
	else
		r = err_set(&err, -EINVAL, "unknown command");
	return r < 0 ? failure(&err) : 0;
}

static int report(void)
{
	const Worker__UnpackReport *rep;
	struct err err = { 0 };
	struct pb_arena arena;
	const uint8_t *data;
	struct buf in;
	ssize_t n;
	int r;

	pb_arena_init(&arena, WIRE_REPORT_MEMORY);
	buf_init(&in, WIRE_HEADER + WIRE_MAX_SMALL);
	while ((n = buf_read_fd(&in, 0, WIRE_MAX_SMALL)) > 0)
		;
	n = n < 0 ? n : wire_next(&in, WIRE_MAX_SMALL, &data);
	if (n <= 0 || buf_len(&in) != WIRE_HEADER + (size_t)n)
		r = err_set(&err, -EPROTO, "not one report");
	else
		r = wire_unpack_report(&arena, data, (size_t)n, &rep, &err);
	if (r == 0 && rep->failure)
		r = wire_failure(rep->failure, &err);
	if (r == 0) {
		printf("ok tar_bytes=%llu file_bytes=%llu entries=%u dropped_xattrs=%u",
		       (unsigned long long)rep->tar_bytes, (unsigned long long)rep->file_bytes,
		       rep->entries, rep->dropped_xattrs);
		for (size_t k = 0; k < rep->n_diff_ids; k++)
			printf(" %s", rep->diff_ids[k]);
		puts("");
	}
	buf_fini(&in);
	pb_arena_fini(&arena);
	return r < 0 ? failure(&err) : 0;
}

static unsigned number(const char *name)
{
	uint64_t v = 0;

	return getenv(name) && str_to_u64(getenv(name), 0, 100000000, &v) == 0 ? (unsigned)v : 0;
}

int main(int argc, char **argv)
{
	struct image_store_options o = { .dir = argv[1],
					 .worker = getenv("IMAGE_TOOL_WORKER"),
					 .arch = getenv("IMAGE_TOOL_ARCH"),
					 .hosts_dir = getenv("IMAGE_TOOL_HOSTS"),
					 .drop_blobs = getenv("IMAGE_TOOL_DROP_BLOBS"),
					 .retry_base_ms = number("IMAGE_TOOL_RETRY_MS"),
					 .stall_s = number("IMAGE_TOOL_STALL_S"),
					 .reserve = number("IMAGE_TOOL_RESERVE_KIB") * KIB };
	struct image_store *s;
	struct err err = { 0 };
	int r;

	if (argc == 2 && str_eq(argv[1], "report"))
		return report();
	if (argc < 3)
		return 2;
	if (loop_new(&o.loop, &err) < 0 || image_store_open(&o, &s, &err) < 0)
		return failure(&err);
	r = command(o.loop, s, argv + 2, argc - 2);
	image_store_close(s);
	loop_free(o.loop);
	return r;
}
