/*
 * What the calls about images share, those of CRI and those of husk.v1: a pull's start,
 * credentials, the words of registries as errors, and the last progress of a transfer. Loop's
 * thread.
 */
#ifndef HUSK_CRI_IMAGES_IMAGES_H
#define HUSK_CRI_IMAGES_IMAGES_H

#include "base/compiler.h"
#include "base/err.h"
#include "cri/huskd.h"
#include "cri/rpc/grpc.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

/* Strings are lent; all absent when a is NULL. */
struct image_auth images_auth(const Cri__AuthConfig *a);

/* image_pull for a request, which is checked. */
int images_pull(struct huskd *d, const Cri__PullImageRequest *req, image_progress_fn progress,
		image_done_fn done, void *arg, struct image_pull **ret, struct err *err) must_check;

/* rpc_reply_err with a text that may be anything, as a registry sent it. */
void images_reply_err(struct rpc_call *call, int code, const struct err *err);
/* As above, with the words that a kubelet knows. */
void images_reply_cri_err(struct rpc_call *call, int code, const struct err *err);

/* ---- progress: the last report is kept for the message with the result ---- */

struct images_part {
	char *digest; /* owned; NULL without memory */
	uint64_t done, size;
	int state; /* enum image_layer_state or image_push_state */
};

/* All zero is empty. */
struct images_progress {
	struct images_part *parts;
	size_t n;
};

/* Takes the place of what was kept before. Without memory it keeps less. */
void images_progress_layers(struct images_progress *v, const struct image_layer_progress *layers,
			    size_t n);
void images_progress_blobs(struct images_progress *v, const struct image_blob_progress *blobs,
			   size_t n);
void images_progress_fini(struct images_progress *v);

/* As a list for a message, which the caller frees in one; it borrows from *v. The count: 0 without
 * memory. */
size_t images_layer_list(const struct images_progress *v, Husk__LayerProgress ***ret);
size_t images_blob_list(const struct images_progress *v, Husk__BlobProgress ***ret);

#endif
