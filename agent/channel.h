/*
 * The two vsock ends of the agent: the channel that it opens to the host, and the listener for
 * streams. Both are made before anything else in the guest, so that no container can come first.
 */
#ifndef HUSK_AGENT_CHANNEL_H
#define HUSK_AGENT_CHANNEL_H

#include "base/compiler.h"

int channel_listen(int *ret_fd) must_check;
/* Starts to connect; when *ret_fd is writable, channel_result says how it went. */
int channel_connect(int *ret_fd) must_check;
int channel_result(int fd) must_check;

#endif
