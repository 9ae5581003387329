/*
 * Tar to tree and ext4: reads one layer's tar by libarchive and feeds tree and ext4_writer.
 * pax, GNU and ustar; sparse files, hard links, devices, FIFOs, extended attributes, whiteouts.
 * One thread of the confined builder process; no name and no number is trusted.
 */
#ifndef HUSK_IMAGE_LAYER_LAYER_TAR_H
#define HUSK_IMAGE_LAYER_LAYER_TAR_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define LAYER_MAX_RECORDS 2000000u /* of a tar, counting those that replace earlier ones */

struct ext4_writer;
struct tree;

/* Bytes of the tar: > 0, 0 at its end, or -errno. *ret points to memory valid until the next call.
 */
typedef ssize_t (*layer_read_fn)(void *arg, const void **ret);

/*
 * -EPROTO: against the rules of names and numbers. -EBADMSG: a damaged or truncated tar. -EFBIG.
 * Reads to the end of the stream, also past the tar's end mark.
 */
int layer_tar_read(layer_read_fn fn, void *arg, struct tree *t, struct ext4_writer *w,
		   struct err *err) must_check;
/*
 * Sets the locale, and makes the libraries load what they would load at their first use (character
 * sets). To be called before the process loses the right to open files.
 */
int layer_tar_prepare(struct err *err) must_check;

#endif
