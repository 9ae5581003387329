/*
 * The streaming server: an HTTP server on loopback to which clients of Exec (and Attach and
 * PortForward) come with a URL of theirs. It knows neither CRI nor shims: what is behind a URL is a
 * table of functions. Loop's thread.
 *
 * Limits of a session are in session.h, of URLs in tokens.h, of a connection in conn.h.
 */
#ifndef HUSK_CRI_STREAM_SERVER_H
#define HUSK_CRI_STREAM_SERVER_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "cri/stream/session.h"

#define STREAM_IDLE_S 14400u /* without a byte; as kubelets have it */
#define STREAM_CONNS_MAX 1024u
/* Connections that have shown no token yet; for one more the oldest of them is closed. */
#define STREAM_STRANGERS_MAX 64u

struct stream_server;

/* Listens. address: of IPv4 or IPv6, as digits; port 0 = any. -EINVAL: not one that clients can
 * reach; -errno. */
int stream_server_new(struct loop *l, const char *address, uint16_t port, uint64_t idle_s,
		      struct stream_server **ret, struct err *err) must_check;
/* Ends all sessions, whose owners are told. NULL is fine. */
void stream_server_free(struct stream_server *s);
/*
 * A URL for one client: http://ADDRESS:PORT/KIND/TOKEN. kind is a constant. The caller frees *ret.
 * When 0 is returned ops->closed will be called. -ENOBUFS: too many URLs wait for their clients.
 */
int stream_server_url(struct stream_server *s, const char *kind, struct stream_want want,
		      const struct stream_ops *ops, void *arg, char **ret,
		      struct err *err) must_check;
/* As in a URL: "127.0.0.1:40123", "[::1]:40123". */
const char *stream_server_address(const struct stream_server *s);

#endif
