/* Between load and pull. Inside of image/; image.h has image_load. Loop thread only. */
#ifndef HUSK_IMAGE_JOB_LOAD_H
#define HUSK_IMAGE_JOB_LOAD_H

#include "image/image.h"

/*
 * As image_pull, out of an archive (a descriptor, borrowed), of the image whose manifest or index
 * has this digest. It gets no name. (pull.c)
 */
int pull_archive(struct image_store *s, int archive_fd, const char *digest,
		 image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
		 struct err *err) must_check;

#endif
