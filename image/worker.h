/*
 * husk-image-worker: the confined side of image/. Two modes, each started by huskd for one pull.
 *
 * husk-image-worker unpack --compression gzip|zstd|none --diff-id sha256:HEX
 *	0: the layer's blob, until its end. 3: an empty file, to become the ext4 image.
 *	1: one JSON line at the end, exit 0:
 *		{"diff_id": "sha256:..", "tar_bytes": N, "file_bytes": N}	or
 *		{"error": {"errno": -74, "text": ".."}}
 *	Two processes: the decoder (decompression and the digest of the tar) and the builder (tar to
 *	ext4), which cannot say anything about the digest. The file is synced before the line is
 *written.
 *	--diff-id is what the image claims; it gives the UUID, and huskd compares it with the
 *result.
 *
 * husk-image-worker fetch
 *	0: a stream socket, commands in, events out, one JSON object a line (WORKER_MAX_LINE).
 *	in:  {"op": "open", "host": "..", "user": "..", "password": "..", "token": ".."}
 *first, once
 *	     {"op": "manifest", "id": N, "repository": "..", "reference": "tag or digest"}
 *	     {"op": "blob", "id": N, "repository": "..", "digest": "..", "size": N}
 *	     {"op": "layer", "id": N, "repository": "..", "digest": "..", "size": N}	with one
 *descriptor (SCM_RIGHTS) that gets the bytes and is closed at the end, whatever the end is out:
 *{"event": "document", "id": N, "length": N, "media_type": ".."} + length bytes
 *	     {"event": "progress", "id": N, "fetched": N}	layers, at most 10 a second
 *	     {"event": "done", "id": N, "fetched": N}		layers: size and digest are right
 *	     {"event": "error", "id": N, "errno": N, "text": ".."}
 *	Documents are not verified here: huskd checks their digests itself. Layers are, byte by
 *byte. End of file on 0 ends the process.
 */
#ifndef HUSK_IMAGE_WORKER_H
#define HUSK_IMAGE_WORKER_H

#include "base/compiler.h"

#define WORKER_MAX_LINE (64 * KIB)
#define WORKER_OUT_FD 3

int worker_unpack(int argc, char **argv);
int worker_fetch(void);

#endif
