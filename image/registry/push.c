#include "image/registry/push.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/registry/registry.h"

#define BLOB_TYPE "application/octet-stream"
#define URL_MAX 4096u
#define MAX_ANSWER (64 * KIB)

struct push {
	struct registry *reg;
	push_done_fn done;
	void *arg;
	uint32_t id;
	char *repository, *digest, *from, *reference, *media_type;
	uint64_t size;
	int fd;
	char upload[URL_MAX]; /* where the rest of the upload belongs; "" = none */
	uint64_t at;	      /* bytes that the registry has */
	unsigned breaks, restarts;
};

static void push_free(struct push *p)
{
	fd_close(&p->fd);
	free(p->repository);
	free(p->digest);
	free(p->from);
	free(p->reference);
	free(p->media_type);
	free(p);
}

static void end(struct push *p, int code, enum push_how how, const struct err *err)
{
	push_done_fn done = p->done;
	void *arg = p->arg;
	uint32_t id = p->id;

	push_free(p);
	done(arg, id, code, how, err);
}

static void fail(struct push *p, int code, const char *doing, const struct err *why)
{
	struct err err = *why;

	code = err_wrap(&err, code, "%s", doing);
	end(p, code, PUSH_SENT, &err);
}

/* Starts a call of the push; if that fails, the push ends. */
static void call(struct push *p, struct registry_call *q, registry_done_fn done)
{
	struct err err = { 0 };
	int r;

	q->id = p->id;
	q->repository = p->repository;
	q->max = MAX_ANSWER;
	q->done = done;
	q->arg = p;
	r = registry_call(p->reg, q, &err);
	if (r < 0)
		fail(p, r, "push", &err);
}

/* ---- where the rest of an upload belongs ---- */

/* Location, as a path below /v2/ or a whole URL. */
static int take_location(struct push *p, const struct registry_result *res)
{
	const char *l = res->location;

	if (str_starts(l, "/v2/"))
		l += strlen("/v2/");
	else if (!str_starts(l, "http://") && !str_starts(l, "https://"))
		return -EPROTO;
	if (strlen(l) + DIGEST_LEN + 16 > URL_MAX)
		return -EPROTO;
	(void)snprintf(p->upload, sizeof(p->upload), "%s", l);
	return 0;
}

/* "0-N": the bytes 0 to N are there. No Range: nothing is. */
static uint64_t range_end(const char *range)
{
	uint64_t last;

	if (str_starts(range, "bytes="))
		range += strlen("bytes=");
	if (!str_starts(range, "0-") || str_to_u64(range + 2, 0, UINT64_MAX - 1, &last) < 0)
		return 0;
	/* "0-0" is one byte, but some registries mean an empty upload by it. Sending that byte
	 * again is harmless: the registry compares the digest at the end. */
	return last ? last + 1 : 0;
}

static void ask_upload(struct push *p);
static void send_rest(struct push *p);
static void begin_upload(struct push *p, const char *from);
static void ask_blob(struct push *p);

static void restart(struct push *p, int code, const struct err *err)
{
	if (++p->restarts > PUSH_MAX_RESTARTS) {
		fail(p, code, "upload", err);
		return;
	}
	*p->upload = '\0';
	p->at = 0;
	ask_blob(p);
}

/* ---- the end of an upload ---- */

static void push_on_put(void *arg, uint32_t id, int code, const struct registry_result *res,
			const struct err *err)
{
	struct push *p = arg;

	if (code == 0)
		end(p, 0, PUSH_SENT, NULL);
	else if (res->again || res->status == 404)
		restart(p, code, err); /* it may have arrived: restart asks first */
	else
		fail(p, code, "finish the upload", err);
}

static void finish_upload(struct push *p)
{
	char url[URL_MAX + DIGEST_LEN + 16];
	struct registry_call q = { .method = "PUT", .path = url, .body_fd = -1 };

	(void)snprintf(url, sizeof(url), "%s%cdigest=%s", p->upload,
		       strchr(p->upload, '?') ? '&' : '?', p->digest);
	call(p, &q, push_on_put);
}

/* ---- the bytes ---- */

static void push_on_patched(void *arg, uint32_t id, int code, const struct registry_result *res,
			    const struct err *err)
{
	struct push *p = arg;

	if (code < 0) {
		if (res->again && ++p->breaks <= PUSH_MAX_BREAKS)
			ask_upload(p);
		else if (res->status == 404 || res->status == 416)
			restart(p, code, err);
		else
			fail(p, code, "upload", err);
		return;
	}
	if (take_location(p, res) < 0) {
		struct err why = { 0 };

		err_set(&why, -EPROTO,
			"the registry does not say where the rest of the upload belongs");
		fail(p, -EPROTO, "upload", &why);
		return;
	}
	p->at = p->size;
	finish_upload(p);
}

static void send_rest(struct push *p)
{
	char range[64];
	struct registry_call q = { .method = "PATCH",
				   .path = p->upload,
				   .content_type = BLOB_TYPE,
				   .body_fd = p->fd,
				   .body_at = p->at,
				   .body_len = p->size - p->at };

	if (p->at == p->size) {
		finish_upload(p);
		return;
	}
	/* The first request has no Content-Range, as Docker sends it; a later one must say where
	 * its bytes belong. */
	if (p->at) {
		(void)snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)p->at,
			       (unsigned long long)p->size - 1);
		q.content_range = range;
	}
	call(p, &q, push_on_patched);
}

/* How much has arrived? */
static void push_on_upload_status(void *arg, uint32_t id, int code,
				  const struct registry_result *res, const struct err *err)
{
	struct push *p = arg;
	uint64_t at;

	if (code < 0) {
		/* The registry has forgotten the upload: from the beginning. */
		if (res->again || (res->status >= 400 && res->status < 500))
			restart(p, code, err);
		else
			fail(p, code, "upload", err);
		return;
	}
	at = range_end(res->range);
	if (at > p->size) {
		restart(p, -EPROTO, err);
		return;
	}
	if (at > p->at)
		p->breaks = 0;
	p->at = at;
	if (*res->location && take_location(p, res) < 0)
		restart(p, -EPROTO, err);
	else
		send_rest(p);
}

static void ask_upload(struct push *p)
{
	struct registry_call q = { .method = "GET", .path = p->upload, .body_fd = -1 };

	call(p, &q, push_on_upload_status);
}

/* ---- its beginning ---- */

static void push_on_begun(void *arg, uint32_t id, int code, const struct registry_result *res,
			  const struct err *err)
{
	struct push *p = arg;
	struct err why = { 0 };

	if (code < 0) {
		/* Perhaps we may not read the other repository: upload it then. */
		if (p->from && res->status >= 400 && res->status < 500) {
			free_ptr(&p->from);
			begin_upload(p, NULL);
		} else if (res->again) {
			restart(p, code, err);
		} else {
			fail(p, code, "begin an upload", err);
		}
	} else if (res->status == 201) {
		end(p, 0, PUSH_MOUNTED, NULL);
	} else if (p->fd < 0) {
		err_set(&why, -ENODATA,
			"%s is not there yet, and is not kept here any more: remove the image "
			"and pull it again",
			p->digest);
		end(p, why.code, PUSH_SENT, &why);
	} else if (take_location(p, res) < 0) {
		err_set(&why, -EPROTO, "the registry does not say where to upload");
		fail(p, -EPROTO, "begin an upload", &why);
	} else {
		send_rest(p);
	}
}

static void begin_upload(struct push *p, const char *from)
{
	cleanup_free char *path = NULL, *scope = NULL;
	struct registry_call q = { .method = "POST", .body_fd = -1 };
	struct err err = { 0 };

	if (from) {
		path = str_fmt("%s/blobs/uploads/?mount=%s&from=%s", p->repository, p->digest,
			       from);
		scope = str_fmt("repository:%s:pull", from);
	} else {
		path = str_fmt("%s/blobs/uploads/", p->repository);
	}
	if (!path || (from && !scope)) {
		err_nomem(&err);
		fail(p, -ENOMEM, "push", &err);
		return;
	}
	q.path = path;
	q.scope = scope;
	call(p, &q, push_on_begun);
}

/* ---- is it there? ---- */

static void push_on_head(void *arg, uint32_t id, int code, const struct registry_result *res,
			 const struct err *err)
{
	struct push *p = arg;

	if (code == 0)
		end(p, 0, p->restarts ? PUSH_SENT : PUSH_PRESENT, NULL);
	else if (res->status == 404)
		begin_upload(p, p->from);
	else
		fail(p, code, "look for the blob", err);
}

static void ask_blob(struct push *p)
{
	cleanup_free char *path = str_fmt("%s/blobs/%s", p->repository, p->digest);
	struct registry_call q = { .method = "HEAD", .path = path, .body_fd = -1 };
	struct err err = { 0 };

	if (path) {
		call(p, &q, push_on_head);
	} else {
		err_nomem(&err);
		fail(p, -ENOMEM, "push", &err);
	}
}

/* ---- manifests ---- */

static void push_on_manifest(void *arg, uint32_t id, int code, const struct registry_result *res,
			     const struct err *err)
{
	struct push *p = arg;
	struct err why = { 0 };

	if (code < 0 && res->again && ++p->breaks <= PUSH_MAX_BREAKS) {
		/* Putting the same manifest twice is harmless. */
		struct registry_call q = { .method = "PUT",
					   .path = p->upload,
					   .content_type = p->media_type,
					   .body_fd = p->fd,
					   .body_len = p->size };
		call(p, &q, push_on_manifest);
	} else if (code < 0) {
		fail(p, code, "put the manifest", err);
	} else if (digest_valid(res->digest) && !str_eq(res->digest, p->digest)) {
		err_set(&why, -EBADMSG, "the registry took the manifest for %s, not %s",
			res->digest, p->digest);
		end(p, why.code, PUSH_SENT, &why);
	} else {
		end(p, 0, PUSH_SENT, NULL);
	}
}

static void put_manifest(struct push *p)
{
	struct registry_call q = { .method = "PUT",
				   .path = p->upload,
				   .content_type = p->media_type,
				   .body_fd = p->fd,
				   .body_len = p->size };

	(void)snprintf(p->upload, sizeof(p->upload), "%s/manifests/%s", p->repository,
		       p->reference);
	call(p, &q, push_on_manifest);
}

int push_start(struct registry *reg, const struct push_request *q, push_done_fn done, void *arg,
	       struct err *err)
{
	struct push *p = calloc(1, sizeof(*p));
	int fd = q->fd;

	if (!p) {
		fd_close(&fd);
		return err_nomem(err);
	}
	*p = (struct push){
		.reg = reg,
		.done = done,
		.arg = arg,
		.id = q->id,
		.repository = strdup(q->repository),
		.digest = strdup(q->digest),
		.from = q->from ? strdup(q->from) : NULL,
		.reference = q->reference ? strdup(q->reference) : NULL,
		.media_type = strdup(q->media_type ? q->media_type : ""),
		.size = q->size,
		.fd = fd,
	};
	if (!p->repository || !p->digest || !p->media_type || (q->from && !p->from) ||
	    (q->reference && !p->reference)) {
		push_free(p);
		return err_nomem(err);
	}
	if (p->reference)
		put_manifest(p);
	else
		ask_blob(p);
	return 0;
}
