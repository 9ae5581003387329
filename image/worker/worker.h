/*
 * husk-image-worker: the confined side of image/. Modes, each started by huskd for one
 * job.
 *
 * husk-image-worker unpack --layers gzip|zstd|none[,..] --id sha256:HEX [--bottom]
 *	0: the layer's blob, until its end; 4, 5, ..: those of further layers, lowest first, which
 *	become one with it. 3: an empty file, to become the ext4 image.
 *	1: one JSON line at the end, exit 0:
 *		{"diff_ids": ["sha256:..", ..], "tar_bytes": N, "file_bytes": N, "entries": N,
 *		 "dropped_xattrs": N}	or
 *		{"error": {"errno": -74, "text": ".."}}
 *	Two processes: the decoder (decompression and the digests of the tars) and the builder (tar
 *	to ext4), which cannot say anything about the digests. The file is synced before the line is
 *	written.
 *	--id is what the file is to be known by; it gives the UUID. huskd compares the diff ids.
 *	--bottom: nothing is below; whiteouts are left out.
 *
 * husk-image-worker fetch
 *	0: a stream socket, commands in, events out, one JSON object a line (WORKER_MAX_LINE).
 *	Descriptors come with the line that they belong to (SCM_RIGHTS).
 *	in:  {"op": "open"}	first, once, with a descriptor: a file of at most
 *		WORKER_MAX_OPEN bytes,
 *		{"host": "..", "hosts": [{"url": "..", "capabilities": N, "mirror": B,
 *		"ns": B, "login": B, "skip_verify": B, "headers": [".."], "ca": "..",
 *		"cert": "..", "key": ".."}, ..],
 *		"user": "..", "password": "..", "token": "..", "identity_token": "..",
 *		"http_proxy": "..", "https_proxy": "..", "no_proxy": "..",
 *		"retry_base_ms": N, "stall_s": N}
 *	     {"op": "manifest", "id": N, "repository": "..", "reference": ".."}
 *		by tag or digest
 *	     {"op": "blob", "id": N, "repository": "..", "digest": "..", "size": N}
 *	     {"op": "layer", "id": N, "repository": "..", "digest": "..", "size": N,
 *	      "have": N, "file": B, "pipe": B}
 *		with a descriptor for each true: a file that takes the blob's bytes and has
 *		the first `have` of them; a pipe that gets all of them. Both are closed at
 *		the end, whatever it is.
 *	     {"op": "push", "id": N, "repository": "..", "digest": "..", "size": N,
 *	      "file": B, "from": "..", "reference": "..", "media_type": ".."}
 *		with a descriptor for the bytes when `file`; `from` is another repository that
 *		may have the blob; with a reference it is a manifest.
 *	     {"op": "ping", "id": N}	are the credentials right? Answered by "done"
 *	out: {"event": "document", "id": N, "length": N, "media_type": ".."} + bytes
 *	     {"event": "progress", "id": N, "fetched": N}	at most 10 a second
 *	     {"event": "done", "id": N, "fetched": N}	size and digest are right
 *	     {"event": "pushed", "id": N, "how": "sent|there|mounted"}
 *	     {"event": "error", "id": N, "errno": N, "text": "..", "again": B}
 *	Documents are verified by huskd, too; layers here, byte by byte. What can be tried
 *	again was: "again" says that a new request could find other bytes (another mirror; no
 *	`have`). End of file on 0 ends the process.
 *
 * husk-image-worker check KINDS [idle]
 *	3 and on: files, a letter of KINDS for each: b for a blob, l for a layer's disk. 1: one
 *	JSON line for each, in this order: {"digest": "sha256:.."} or {"error": ..} as of
 *	unpack. A blob's digest is that of its bytes; a layer's is over its size and those of
 *	its blocks of 64 KiB that are not all zero, each with its number, so that holes cost
 *	nothing.
 *	idle: runs when no other process wants the CPU.
 *
 * husk-image-worker archive
 *	0: as `fetch`, but what is asked for is in a tar (archive_source.h).
 *	in:  {"op": "open"}	first, once, with a descriptor: the tar, also compressed
 *	     {"op": "list", "id": N}	with a descriptor: an empty file, for the tar when it
 *		has to be expanded. Answered by a document:
 *		{"expanded": B, "images": [{"digest": "..", "names": [".."]}, ..]}
 *	     manifest (by digest), blob, layer: as above; one after the other
 */
#ifndef HUSK_IMAGE_WORKER_WORKER_H
#define HUSK_IMAGE_WORKER_WORKER_H

#include <stdbool.h>

#include "base/compiler.h"

#define WORKER_MAX_LINE (64 * KIB)
#define WORKER_MAX_OPEN (16 * MIB)
#define WORKER_OUT_FD 3
#define CHECK_FIRST_FD 3
#define CHECK_BLOB 'b'
#define CHECK_LAYER 'l'
#define WORKER_LAYER_FD(k) ((k) ? (int)(k) + WORKER_OUT_FD : 0)

int worker_unpack(int argc, char **argv);
int worker_check(const char *kinds, bool when_idle);
int worker_fetch(void);
int worker_archive(void);

#endif
