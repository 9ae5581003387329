/* The program's subcommands. Each returns the exit status of the program. */
#ifndef HUSK_SHIM_CMD_H
#define HUSK_SHIM_CMD_H

#include <stdbool.h>

#define SHIM_SOCKET_MAX 106u /* characters of the socket's path */

/* Arguments that containerd gives to every subcommand. */
struct shim_args {
	const char *ns, *id, *address, *bundle, *publish_binary;
	bool debug;
};

int shim_start(const struct shim_args *args);
int shim_delete(const struct shim_args *args);
int shim_daemon(const struct shim_args *args);

#endif
