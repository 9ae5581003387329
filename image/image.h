/*
 * Images: pull from a registry into ext4 layer files, list, look up, remove. The one door for
 * huskd.
 *
 * An image is known by its id "sha256:<hex>" = the digest of its configuration. Every layer is one
 * read-only ext4 file, kept by diff id and shared by all images. All functions belong to the
 * thread of the store's loop; none waits for the network. Several stores can live side by side,
 * each with its own directory; a directory belongs to one process at a time (lock).
 *
 * Error codes, everywhere in this header (the text in `err` is for people):
 *	-EINVAL		a reference that is not one; an id prefix that fits several images
 *	-ENOENT		no such image, here or (404) in the registry
 *	-EACCES		the registry wants (other) credentials (401, 403)
 *	-EBUSY		the registry asks for patience (429); image_untag: in use
 *	-EHOSTUNREACH, -ECONNREFUSED, -ETIMEDOUT, -EREMOTEIO
 *			the registry cannot be reached, or fails (5xx): image_err_unavailable()
 *	-EBADMSG	wrong digest, truncated or damaged data
 *	-EPROTO		a registry's answer, manifest, configuration or tar that breaks its rules
 *	-ENOTSUP	no image for this platform, unknown media type, schema 1, encrypted layers
 *	-EFBIG		over one of the limits (limits.h)
 *	-ENOSPC, -EDQUOT, -EIO	the disk (-ENOSPC also: the reserve would be taken)
 *	-ECANCELED	the store was closed
 */
#ifndef HUSK_IMAGE_IMAGE_H
#define HUSK_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/limits.h"

struct loop;
struct image_store;
struct image_pull;

#define IMAGE_ID_LEN 71 /* "sha256:" and 64 hex digits, without the NUL */

/* ---- store ---- */

struct image_store_options {
	struct loop *loop;  /* borrowed, must outlive the store */
	const char *dir;    /* <root>/images; made when missing, mode 0700 */
	const char *worker; /* husk-image-worker; NULL = in the directory of the running program */
	const char *arch;   /* OCI names: "amd64", "arm64"; NULL = this machine's */
	unsigned max_layers_at_once; /* of one pull; 0 = 3 */
	unsigned max_layers_in_all;  /* of all pulls; 0 = 8 */
	const char *hosts_dir;	     /* certs.d of containerd (hosts.h); NULL = none */
	/* Patience with registries: 0 = 500 ms before the second try, 30 s without bytes. */
	unsigned retry_base_ms, stall_s;
	/* Each worker process runs as a user of its own: these; 0 = 4096 from 1879048192 on.
	 * -EINVAL (image_store_open): one of them is a user of this host. */
	uint32_t worker_uid_first, worker_uids;
	char *const *pinned; /* names of images that are always pinned; NULL = none. Copied. */
	/* Layer blobs are deleted once they are unpacked: less disk, but no push and no save of an
	 * image, and repair fetches. */
	bool drop_blobs;
	/* Bytes of the file system that pulls and loads leave free; 0 = a twentieth of it, between
	 * 1 and 10 GiB, but a tenth of a small one at most. */
	uint64_t reserve;
};

/* Opens (makes) the store and removes what dead pulls left. -EBUSY: another process has it open. */
int image_store_open(const struct image_store_options *o, struct image_store **ret,
		     struct err *err) must_check;
/* Ends what is still running (its `done` is called with -ECANCELED). NULL is fine. */
void image_store_close(struct image_store *s);

/* ---- what an image says about its processes ---- */

/* Strings are never NULL: absent = "". Vectors are never NULL and end with NULL: absent = empty. */
struct image_config {
	char **entrypoint;
	char **cmd;
	char **env; /* "KEY=value" */
	char *working_dir;
	char *user;	   /* "", "uid", "name", "uid:gid", "name:group" */
	char *stop_signal; /* as written: "SIGTERM", "15", "" */
	char **labels;	   /* key, value, key, value, ... */
	char *os, *arch, *variant;
	char *created;	 /* RFC 3339 as written */
	char **diff_ids; /* "sha256:<hex>", lowest first */
};

struct image_info {
	char *id;
	char **repo_tags;    /* "docker.io/library/busybox:latest", sorted */
	char **repo_digests; /* "docker.io/library/busybox@sha256:<hex>", sorted; also of tags that
			      * came with an archive or were given here */
	uint64_t size;	     /* bytes of its layer files on disk and of its configuration, > 0 */
	int64_t created_ns;  /* when it came into the store */
	uint32_t holders;    /* containers that use it */
	bool damaged;	     /* image_verify found a bad layer: pull it again */
	bool pinned;	     /* by image_pin, or by the store's options */
	/* CRI Image.uid / username: the part of config.user before ':'. */
	bool has_uid;
	int64_t uid;	/* valid when has_uid */
	char *username; /* "" when has_uid, or no user at all */
	struct image_config config;
	/* JSON text of the configuration as in the registry (verbose ImageStatus), and the chain
	 * id. */
	char *config_json;
	char *chain_id;
};
void image_info_free(struct image_info *i); /* NULL is fine */
void image_info_freep(struct image_info **i);
#define cleanup_image_info cleanup_with(image_info_freep)

/*
 * `ref` is any form that CRI knows: name, name:tag, name@digest, name:tag@digest (Docker-style
 * normalisation: "busybox" = docker.io/library/busybox:latest), the id with or without "sha256:",
 * or a unique prefix of at least 4 hex digits of it (a name wins over a prefix). A digest is that
 * of what the name was pulled or loaded as, index or manifest, or of the manifest chosen from an
 * index.
 */
int image_get(struct image_store *s, const char *ref, struct image_info **ret,
	      struct err *err) must_check;
/* All images, or those that `ref` (NULL or "" = all) names, sorted by id. No match = n 0.
 * The caller frees with image_list_free. */
int image_list(struct image_store *s, const char *ref, struct image_info ***ret, size_t *ret_n,
	       struct err *err) must_check;
void image_list_free(struct image_info **list, size_t n);
/*
 * Removes the image that `ref` names with all its tags and digests (CRI RemoveImage), and the
 * layers and blobs that nothing else uses. Missing image = 0. A held image disappears from all
 * look-ups except image_layers at once; its layers go with the last release.
 */
int image_remove(struct image_store *s, const char *ref, struct err *err) must_check;

/* What image_untag did. */
struct image_untagged {
	char **names;  /* that are gone, in full, sorted */
	char *deleted; /* id of the image when it is gone, too; else NULL */
};
void image_untagged_fini(struct image_untagged *u);
/*
 * `docker rmi`: one name goes alone while the image has other tags; with its last tag, or named by
 * its id, the whole image goes. -ENOENT. -EBUSY without `force`: containers use the image, or the
 * id has names in several repositories. With `force` as image_remove.
 */
int image_untag(struct image_store *s, const char *ref, bool force, struct image_untagged *ret,
		struct err *err) must_check;
/* One more name for an image; a name that another image has moves over. `name` is without digest,
 * without tag = latest; *ret_name (may be NULL) is it in full, the caller frees. -ENOENT, -EINVAL.
 * It survives this process after an image_written, a loss of power after an image_sync. */
int image_tag(struct image_store *s, const char *ref, const char *name, char **ret_name,
	      struct err *err) must_check;
/* `done` comes when what the calls before this one have changed is on the disk; never from inside.
 * It cannot be cancelled. image_store_close waits for it. */
int image_sync(struct image_store *s, void (*done)(void *arg, int code, const struct err *err),
	       void *arg, struct err *err) must_check;
/* As above, when it is where a kill -9 does not reach it. What has failed by then (the disk is
 * full) is tried again; in memory it is right in any case. */
int image_written(struct image_store *s, void (*done)(void *arg, int code, const struct err *err),
		  void *arg, struct err *err) must_check;
/* Pinned images are marked for the kubelet's garbage collection, and never pruned. -ENOENT.
 * Lasting as a name of image_tag is. */
int image_pin(struct image_store *s, const char *ref, bool pinned, struct err *err) must_check;

/* ---- use by containers ---- */

/*
 * Protects the layers of image `id` for `holder` (a container id, any string up to 255 bytes).
 * Kept in the database: it survives this process after an image_written. Doing it twice is one
 * hold. -ENOENT: no such image.
 */
int image_hold(struct image_store *s, const char *id, const char *holder,
	       struct err *err) must_check;
/* Ends the hold (0 when there is none) and deletes layers that nobody needs now. */
int image_release(struct image_store *s, const char *holder, struct err *err) must_check;
/* All holders, so that huskd can release those it does not know any more. strv, caller frees. */
int image_holders(struct image_store *s, char ***ret, struct err *err) must_check;
/*
 * Absolute paths of the layer files, lowest first (strv, caller frees); the file system type is
 * "ext4". An image without layers gives an empty vector. Hold the image first. -ENOENT.
 */
int image_layers(struct image_store *s, const char *id, char ***ret, struct err *err) must_check;

/*
 * Makes `path` (must not exist; its directory is made, too) a writable container disk: a sparse
 * ext4 file of IMAGE_SCRATCH_SIZE virtual bytes that takes a few hundred KiB, with an empty root
 * directory. `done` comes when it is there, never from inside: about a millisecond later, or as
 * long as the disk takes.
 */
#define IMAGE_SCRATCH_SIZE (64 * GIB)
int image_scratch_create(struct image_store *s, const char *path,
			 void (*done)(void *arg, int code, const struct err *err), void *arg,
			 struct err *err) must_check;

/* Removes a container's disk, or its whole directory, by the same thread: after an
 * image_scratch_create that was asked for before. A missing one is fine. */
void image_discard(struct image_store *s, const char *path);

/* ---- disk use ---- */

struct image_fs_usage {
	const char *mountpoint; /* the store's directory; valid as long as the store */
	uint64_t used_bytes;	/* really allocated, layers and database */
	uint64_t inodes_used;
	int64_t timestamp_ns;
};
int image_fs_info(struct image_store *s, struct image_fs_usage *ret, struct err *err) must_check;

enum image_use_kind {
	IMAGE_USE_IMAGES,   /* image disks: bytes of the layers that images have */
	IMAGE_USE_BLOBS,    /* kept compressed layers and documents */
	IMAGE_USE_PARTIAL,  /* unfinished: downloads, and what broken pulls left for the next one */
	IMAGE_USE_METADATA, /* database, directories, template of scratch disks */
	IMAGE_USE_KINDS,
};
/* "images", "blobs", "partial", "metadata" */
const char *image_use_name(enum image_use_kind kind);

/* Bytes are allocated ones; those of all kinds add up to image_fs_info. */
struct image_use {
	uint64_t count;	 /* images; files */
	uint64_t active; /* of them: images that containers use; blobs an image needs */
	uint64_t bytes, inodes;
	uint64_t reclaimable; /* bytes that image_prune with every option would give back */
};
int image_usage(struct image_store *s, struct image_use ret[IMAGE_USE_KINDS],
		struct err *err) must_check;

struct image_prune_options {
	bool dangling; /* images without a tag that no container uses */
	bool all;      /* all images that no container uses */
	bool blobs;    /* compressed layers that are unpacked, and what broken pulls left */
	bool dry_run;  /* only tell */
};
struct image_pruned {
	char **images; /* ids */
	uint64_t blobs, layers;
	uint64_t bytes, layer_bytes; /* of all; of the layers among it */
};
void image_pruned_fini(struct image_pruned *p);
/* Never takes pinned images, images with a holder, and what running pulls, pushes, ... need. */
int image_prune(struct image_store *s, const struct image_prune_options *o,
		struct image_pruned *ret, struct err *err) must_check;

/* ---- pull ---- */

/* As CRI AuthConfig; NULL or "" = not given. Copied. `auth` is base64("user:password"). */
struct image_auth {
	const char *username, *password, *auth, *server_address, *identity_token, *registry_token;
};

/* The numbers of husk.proto LayerProgress.State. */
enum image_layer_state {
	IMAGE_LAYER_WAITING,
	IMAGE_LAYER_FETCHING,
	IMAGE_LAYER_UNPACKING,
	IMAGE_LAYER_DONE,
	IMAGE_LAYER_SHARED, /* was there already */
};

struct image_layer_progress {
	const char *digest; /* of the compressed blob */
	uint64_t fetched, size;
	enum image_layer_state state;
};

/* Valid during the callback only. All layers, lowest first. */
struct image_progress {
	const struct image_layer_progress *layers;
	size_t n_layers;
};

struct image_pull_result {
	const char *id;	   /* of the image */
	uint64_t fetch_ns; /* until the last blob was there */
	uint64_t total_ns; /* until the image was visible */
};

/* Called when the manifest is known, and then at most 10 times a second. May cancel the pull. */
typedef void (*image_progress_fn)(void *arg, const struct image_progress *p);
/*
 * Called exactly once, never inside image_pull, and not after image_pull_cancel. The handle is
 * gone when it is called. `r` is set when code == 0; both pointers are valid during the call.
 */
typedef void (*image_done_fn)(void *arg, int code, const struct image_pull_result *r,
			      const struct err *err);

/*
 * Starts a pull; `progress` may be NULL. Failing at once (bad reference, no worker program) gives
 * a negative code and no callback. Pulls of the same layers at the same time fetch them once.
 * An image becomes visible as a whole, when all its layers are verified and on disk.
 */
int image_pull(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
	       struct err *err) must_check;
/* Ends the pull and frees the handle; its processes are killed, its temporary files removed. */
void image_pull_cancel(struct image_pull *p);

/* ---- push, login ---- */

/* The numbers of husk.proto BlobProgress.State. */
enum image_push_state {
	IMAGE_PUSH_WAITING,
	IMAGE_PUSH_SENDING,
	IMAGE_PUSH_DONE,
	IMAGE_PUSH_THERE,   /* the registry had it */
	IMAGE_PUSH_MOUNTED, /* taken from another repository of the registry */
};

struct image_blob_progress {
	const char *digest;
	uint64_t sent, size;
	enum image_push_state state;
};
/* Layers lowest first, then the configuration; at most 10 times a second. Must not cancel. */
typedef void (*image_push_progress_fn)(void *arg, const struct image_blob_progress *v, size_t n);

struct image_push_result {
	const char *digest; /* of the manifest */
	uint64_t total_ns;
};
/* Exactly once, never inside image_push, and not after image_push_cancel; the handle is gone. */
typedef void (*image_push_done_fn)(void *arg, int code, const struct image_push_result *r,
				   const struct err *err);
struct image_push;
/*
 * Sends the image that has the name `ref` (with a tag) to the registry in it: the blobs that are
 * not there, then the manifest for this platform. -ENODATA: a blob has to be sent and is not kept.
 */
int image_push(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_push_progress_fn progress, image_push_done_fn done, void *arg,
	       struct image_push **ret, struct err *err) must_check;
void image_push_cancel(struct image_push *p);

typedef void (*image_login_done_fn)(void *arg, int code, const struct err *err);
struct image_login;
/* Does the registry `server` ("docker.io", "127.0.0.1:5000") take the credentials? -EACCES. As for
 * image_push. */
int image_login(struct image_store *s, const char *server, const struct image_auth *auth,
		image_login_done_fn done, void *arg, struct image_login **ret,
		struct err *err) must_check;
void image_login_cancel(struct image_login *l);

/* ---- save ---- */

#define IMAGE_SAVE_MAX 64u /* images in one archive */

enum image_archive {
	IMAGE_ARCHIVE_OCI,    /* an OCI layout */
	IMAGE_ARCHIVE_DOCKER, /* the same with manifest.json, as `docker load` wants it */
};

struct image_save;
/*
 * Images as one tar, with the names they are given by here. What it needs is protected until
 * image_save_free. -ENOENT. -ENODATA: its compressed layers are not kept; the text tells what to
 * do.
 */
int image_save_open(struct image_store *s, char *const *refs, size_t n, enum image_archive format,
		    struct image_save **ret, struct err *err) must_check;
uint64_t image_save_size(const struct image_save *v); /* of the whole tar */
/* The next bytes, as many as fit; 0 at the end. -EBADMSG: a blob is damaged. */
ssize_t image_save_read(struct image_save *v, void *buf, size_t cap, struct err *err) must_check;
void image_save_free(struct image_save *v); /* NULL is fine */

/* ---- load ---- */

struct image_load_ops {
	/* `image`: its name, or its digest in the archive. May be NULL. Must not cancel the load.
	 */
	void (*progress)(void *arg, const char *image, const struct image_progress *p);
	/* One image is there, with these names in full. Must not cancel the load. */
	void (*loaded)(void *arg, const char *id, char *const *names);
	/* Once, at the end; the handle is gone. What was loaded before a failure stays. */
	void (*done)(void *arg, int code, const struct err *err);
};

struct image_load;
/*
 * The images of an archive: an OCI layout or what `docker save` writes, also compressed (gzip,
 * zstd). `name` (NULL = none) is for the only image of an archive that names none. `ops` is copied.
 */
int image_load_new(struct image_store *s, const char *name, const struct image_load_ops *ops,
		   void *arg, struct image_load **ret, struct err *err) must_check;
/* The next bytes of the archive. -EFBIG, -ENOSPC; cancel then. */
int image_load_put(struct image_load *l, const void *data, size_t len, struct err *err) must_check;
/* All bytes are there. On failure nothing will be called; cancel. */
int image_load_start(struct image_load *l, struct err *err) must_check;
void image_load_cancel(struct image_load *l); /* frees it; NULL is fine */

/* ---- verify ---- */

/* One object that was read. Valid during the callback only. */
struct image_verified {
	const char *kind;    /* "layer" (a disk), "blob" */
	const char *digest;  /* diff id, or digest of the blob */
	size_t done, total;  /* objects, with this one */
	const char *problem; /* NULL = it is what it was */
	char *const *images; /* ids of the images that need it, when there is a problem */
};
typedef void (*image_verify_fn)(void *arg, const struct image_verified *v);
/* Called exactly once, never inside image_verify, and not after image_verify_cancel; the handle is
 * gone then. Problems are not errors: code is 0 when all could be looked at. */
typedef void (*image_verify_done_fn)(void *arg, int code, size_t problems, const struct err *err);

struct image_verify;
/*
 * Reads what the images that `refs` names (NULL or empty = everything in the store) are made of
 * again, in a confined process, one object after the other. A layer is compared with what it was
 * when it was read first, soon after it came. A damaged layer is marked, its images are shown as
 * damaged, and the next pull of them makes it anew; a damaged blob is deleted. -ENOENT.
 */
int image_verify(struct image_store *s, char *const *refs, image_verify_fn fn,
		 image_verify_done_fn done, void *arg, struct image_verify **ret,
		 struct err *err) must_check;
void image_verify_cancel(struct image_verify *v);

/* Is it the registry's failure (CRI error prefix "RegistryUnavailable")? */
bool image_err_unavailable(int code);
/* `ref` in full ("busybox" -> "docker.io/library/busybox:latest"); the caller frees. -EINVAL. */
int image_normalize(const char *ref, char **ret, struct err *err) must_check;

#endif
