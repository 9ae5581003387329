/*
 * Pulling an image: what `husk pull` does, and `husk run` with an image that is not here. One
 * thread.
 */
#ifndef HUSK_CLI_PULL_H
#define HUSK_CLI_PULL_H

#include "cli/cli.h"
#include "cli/progress.h"

struct pulled {
	char *image_ref; /* for CreateContainer; owned */
	/* How long it took; both 0 when the image was here. */
	uint64_t fetch_ns; /* until the last blob was there */
	uint64_t total_ns; /* until the image could be used */
};

/* The caller frees ret->image_ref. */
int pull_image(struct cli *c, const char *image, enum progress_kind kind, struct pulled *ret,
	       struct err *err) must_check;
/* Asks the registry only when the image is not here, or with always_pull; shows progress to
 * people. */
int pull_missing(struct cli *c, const char *image, bool always_pull, struct pulled *ret,
		 struct err *err) must_check;

#endif
