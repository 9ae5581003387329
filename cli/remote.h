/*
 * A process in a container, joined to our standard streams: the client of the URLs that Exec and
 * Attach return, over WebSocket (v5.channel.k8s.io). Blocks until the session ends; each side holds
 * the other back. One thread.
 */
#ifndef HUSK_CLI_REMOTE_H
#define HUSK_CLI_REMOTE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

#define REMOTE_STATUS_MAX (64 * KIB) /* of what the server says at the end */
#define REMOTE_CONNECT_MS 10000	     /* until the server has answered */

struct remote_options {
	bool in;	  /* our input goes there */
	bool tty;	  /* the process has a terminal: ours is made raw, and its size followed */
	bool detach_keys; /* Ctrl-P Ctrl-Q ends it, and is the answer 0 */
};

/* 0: *ret_code is the process's exit code, or 128 + n when signal n ended us. -EIO: it could not be
 * run; *ret_code is set where the server knows a code for that (127: no such program). */
int remote_run(const char *url, const struct remote_options *o, int *ret_code,
	       struct err *err) must_check;

/* ---- parts, for tests ---- */
/* The Status of Kubernetes: 0 with the exit code, -EIO with its message (as above), -EPROTO. */
int remote_parse_status(const char *text, size_t len, int *ret_code, struct err *err) must_check;
/* "http://127.0.0.1:80/path" or "http://[::1]:80/path". The caller frees. */
int remote_parse_url(const char *url, char **ret_host, char **ret_port, const char **ret_path,
		     struct err *err) must_check;

#endif
