/*
 * The pipe from the decoder to the builder (worker/unpack.c): the tars of one or more layers, in
 * frames. A frame is a number of 32 bits in the byte order of the machine, and so many bytes of a
 * tar after it. Two numbers are marks instead: 0 ends a layer that is followed by another one,
 * UINT32_MAX ends the last one. A decoder that fails ends the pipe without the last mark, so that
 * the builder never takes a part of a layer for all of it.
 *
 * The decoder is not trusted: any bytes are a stream of frames, and no frame makes the builder read
 * more than UNPACK_PIPE_CHUNK at a time. One thread at each end; blocking.
 */
#ifndef HUSK_IMAGE_LAYER_UNPACK_PIPE_H
#define HUSK_IMAGE_LAYER_UNPACK_PIPE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

#define UNPACK_PIPE_CHUNK (256 * KIB)

/* ---- the decoder's end; -errno of write() ---- */

/* 1 .. UINT32_MAX - 1 bytes of a layer's tar. */
int unpack_pipe_write(int fd, const void *data, size_t len) must_check;
/* The layer has ended; `last`: it was the last one. */
int unpack_pipe_write_end(int fd, bool last) must_check;

/* ---- the builder's end ---- */

struct unpack_pipe {
	/* As read(): bytes, 0 at the end, -errno. */
	ssize_t (*read)(void *arg, void *buf, size_t n);
	void *arg;
	uint32_t left;	  /* bytes of the current frame that are not read yet */
	bool layer_ended; /* the mark behind the layer has been read */
	bool ended;	  /* it was that of the last layer */
	uint8_t buf[UNPACK_PIPE_CHUNK];
};

void unpack_pipe_init(struct unpack_pipe *p, ssize_t (*read)(void *arg, void *buf, size_t n),
		      void *arg);
/* For unpack_pipe_init: reads from a descriptor, of which `arg` is the address. */
ssize_t unpack_pipe_read_fd(void *arg, void *buf, size_t n) must_check;
/* The next bytes of the layer, at *ret until the next call; 0: its end, and again until the next
 * layer is begun. -EPIPE: the pipe has ended within it; -errno of `read`. */
ssize_t unpack_pipe_read(struct unpack_pipe *p, const void **ret) must_check;
/* Continues with the next layer, when this one has ended. False: it was the last one. */
bool unpack_pipe_next(struct unpack_pipe *p);

#endif
