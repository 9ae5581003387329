/*
 * Documents: manifests and small blobs (configurations), into memory, and verified by their digest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/registry/internal.h"

static const char accept_manifest[] =
	"Accept: application/vnd.oci.image.index.v1+json, "
	"application/vnd.docker.distribution.manifest.list.v2+json, "
	"application/vnd.oci.image.manifest.v1+json, "
	"application/vnd.docker.distribution.manifest.v2+json";

struct document {
	struct request q;
	char digest[DIGEST_LEN + 1]; /* "" = unknown: asked for by a tag */
	const char *kind;	     /* for texts */
};

static int document_headers(struct request *q)
{
	return exchange_header(&q->x, "%s", accept_manifest);
}

static bool document_is_answer(long status)
{
	return status == 200;
}

/* A host that gives other bytes is not asked again; another one may have the right ones. */
static void document_answered(struct request *q)
{
	const struct document *d = (const struct document *)q;
	char digest[DIGEST_LEN + 1];
	struct err err = { 0 };
	int r = 0;

	if (*d->digest) {
		r = digest_of(buf_data(&q->x.body), buf_len(&q->x.body), digest);
		if (r < 0)
			err_nomem(&err);
		else if (!str_eq(digest, d->digest))
			r = err_set(&err, -EBADMSG, "%s %s has the wrong digest: it is %s", d->kind,
				    d->digest, digest);
	}
	if (r == -EBADMSG)
		request_try_failed(q, r, false, 0, &err);
	else
		request_end(q, r, false, &err);
}

static const struct request_ops manifest_ops = {
	.object = "image",
	.headers = document_headers,
	.is_answer = document_is_answer,
	.answered = document_answered,
};

static const struct request_ops blob_ops = {
	.object = "blob",
	.is_answer = document_is_answer,
	.answered = document_answered,
};

static int document_start(struct registry *reg, const struct registry_document *in,
			  const struct request_ops *ops, const char *kind, const char *folder,
			  struct err *err)
{
	struct document *d = calloc(1, sizeof(*d));

	if (!d || request_init(&d->q, reg, ops, in->id, in->max) < 0) {
		free(d);
		return err_nomem(err);
	}
	d->q.x.document = true;
	d->kind = kind;
	if (digest_valid(in->reference))
		memcpy(d->digest, in->reference, sizeof(d->digest));
	d->q.capability = *d->digest ? HOST_PULL : HOST_RESOLVE;
	d->q.path = str_fmt("%s/%s/%s", in->repository, folder, in->reference);
	d->q.scopes = str_fmt("repository:%s:pull", in->repository);
	return request_start(&d->q, err);
}

int registry_manifest(struct registry *reg, const struct registry_document *in, struct err *err)
{
	return document_start(reg, in, &manifest_ops, "manifest", "manifests", err);
}

int registry_blob(struct registry *reg, const struct registry_document *in, struct err *err)
{
	if (!digest_valid(in->reference))
		return err_set(err, -EPROTO, "a blob is asked for without a digest");
	return document_start(reg, in, &blob_ops, "configuration", "blobs", err);
}
