/*
 * huskd's end of one fetch process (worker.h has the protocol). What comes from the process is not
 * trusted: it is bounded and checked, and documents still have to be verified by the caller. Loop
 * thread.
 */
#ifndef HUSK_IMAGE_FETCHER_H
#define HUSK_IMAGE_FETCHER_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct fetcher;
struct image_store;

/* Each may call fetcher_free. */
struct fetcher_ops {
	void (*document)(void *arg, uint32_t id, const void *data, size_t len);
	void (*progress)(void *arg, uint32_t id, uint64_t fetched);
	void (*done)(void *arg, uint32_t id, uint64_t fetched);
	/* id 0: the process itself has failed or died */
	void (*error)(void *arg, uint32_t id, int code, const struct err *err);
};

struct fetcher_login {
	const char *host;
	const char *user, *password, *token; /* NULL = none */
};

int fetcher_new(struct image_store *s, const struct fetcher_login *login,
		const struct fetcher_ops *ops, void *arg, struct fetcher **ret,
		struct err *err) must_check;
void fetcher_free(struct fetcher *f); /* kills the process; NULL is fine */
int fetcher_manifest(struct fetcher *f, uint32_t id, const char *repository, const char *reference,
		     struct err *err) must_check;
int fetcher_blob(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		 uint64_t size, struct err *err) must_check;
/* `fd` gets the bytes; it stays the caller's, who closes it after the call. */
int fetcher_layer(struct fetcher *f, uint32_t id, const char *repository, const char *digest,
		  uint64_t size, int fd, struct err *err) must_check;

#endif
