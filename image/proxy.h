/*
 * Which proxy a request goes through, by the rules of HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go
 * programs (kubelet, containerd) read them. Pure.
 */
#ifndef HUSK_IMAGE_PROXY_H
#define HUSK_IMAGE_PROXY_H

#include <stdbool.h>

/*
 * Shall a request to `host` (a name, or an address without brackets) and `port` go around the
 * proxy? `no_proxy` (NULL = empty) lists, with commas: "*"; names, which mean themselves and what
 * is below them (".x": only what is below); addresses; networks ("10.0.0.0/8"); each but networks
 * with ":port" if need be. This machine (localhost, 127/8, ::1) is never reached by a proxy.
 */
bool proxy_bypassed(const char *no_proxy, const char *host, unsigned port);

#endif
