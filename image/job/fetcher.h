/*
 * huskd's end of one fetch process (worker.h has the protocol). What comes from the process is not
 * trusted: it is bounded and checked, and documents still have to be verified by the caller. Loop
 * thread.
 */
#ifndef HUSK_IMAGE_JOB_FETCHER_H
#define HUSK_IMAGE_JOB_FETCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct credentials;
struct fetcher;
struct hosts;
struct image_auth;
struct procs;

/* Each may call fetcher_free. */
struct fetcher_ops {
	void (*document)(void *arg, uint32_t id, const void *data, size_t len);
	void (*progress)(void *arg, uint32_t id, uint64_t fetched);
	void (*done)(void *arg, uint32_t id, uint64_t fetched);
	/* how: "sent", "there", "mounted"; NULL when nothing is pushed. */
	void (*pushed)(void *arg, uint32_t id, const char *how);
	/* id 0: the process itself has failed or died. again: a new request may have more luck, at
	 * another mirror or without what there was from before. */
	void (*error)(void *arg, uint32_t id, int code, bool again, const struct err *err);
};

/* What is the same for all registries. */
struct fetcher_config {
	char *hosts_dir;	/* certs.d of containerd (hosts.h); NULL = none */
	unsigned retry_base_ms; /* before the second try */
	unsigned stall_s;	/* without bytes; 0 = the worker's own, for both */
};

/* What the process is told about its registry. Copied; NULL = none. */
struct fetcher_options {
	const char *host; /* as in the image's name */
	const struct hosts *hosts;
	const char *user, *password, *token, *identity_token;
	unsigned retry_base_ms, stall_s; /* as in fetcher_config */
	/* An archive of images instead of a registry, and no other option; borrowed. */
	bool from_archive;
	int archive_fd;
};

/* Proxies are those of huskd's environment. */
int fetcher_new(struct procs *ps, const struct fetcher_options *o, const struct fetcher_ops *ops,
		void *arg, struct fetcher **ret, struct err *err) must_check;
/* For images of `host`, by what hosts.toml says of it. *c, which outlives the call for the caller
 * to free also on failure, becomes `auth` (NULL = none). */
int fetcher_open(struct procs *ps, const struct fetcher_config *config, const char *host,
		 const struct image_auth *auth, struct credentials *c,
		 const struct fetcher_ops *ops, void *arg, struct fetcher **ret,
		 struct err *err) must_check;
void fetcher_free(struct fetcher *f); /* kills the process; NULL is fine */
int fetcher_manifest(struct fetcher *f, uint32_t id, const char *repository, const char *reference,
		     struct err *err) must_check;
/* Of an archive: a document that tells what is in it. expand_fd: an empty file. */
int fetcher_list(struct fetcher *f, uint32_t id, int expand_fd, struct err *err) must_check;
int fetcher_blob(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		 uint64_t size, struct err *err) must_check;

struct fetcher_push {
	const char *repository, *digest;
	uint64_t size;
	int fd;			/* the bytes, from their start; -1: only if it need not be sent */
	const char *from;	/* a repository of this registry that may have it; NULL = none */
	const char *reference;	/* a manifest; NULL = a blob */
	const char *media_type; /* of a manifest */
};
/* The descriptor stays the caller's, who closes it after the call. */
int fetcher_push(struct fetcher *f, uint32_t id, const struct fetcher_push *p,
		 struct err *err) must_check;
/* Are the credentials right? Answered by `done`. */
int fetcher_ping(struct fetcher *f, uint32_t id, struct err *err) must_check;

struct fetcher_layer {
	const char *digest;
	uint64_t size;
	int file_fd; /* takes the bytes and has the first `have` of them; -1 = none */
	uint64_t have;
	int pipe_fd; /* gets all bytes, those that were there first; -1 = none */
};
/* The descriptors stay the caller's, who closes them after the call. */
int fetcher_layer(struct fetcher *f, uint32_t id, const char *repository,
		  const struct fetcher_layer *l, struct err *err) must_check;

#endif
