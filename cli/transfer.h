/* What `husk pull` and `husk push` have in common: options, credentials, one image after the other.
 */
#ifndef HUSK_CLI_TRANSFER_H
#define HUSK_CLI_TRANSFER_H

#include "cli/cli.h"
#include "cli/progress.h"

/* Prints "husk: TEXT" itself when it fails. Returns an exit code. */
typedef int (*transfer_one_fn)(struct cli *c, const char *image, enum progress_kind kind);

/* Parses [-q | --json] by `short_options` (getopt's), and calls `one` for each image. Exit code. */
int transfer_each(struct cli *c, const struct command *cmd, const char *short_options, int argc,
		  char **argv, transfer_one_fn one);

struct transfer {
	const char *method; /* of husk.v1 */
	const char *image;
	const ProtobufCMessage *req;
	Cri__AuthConfig **auth;	   /* the field of *req for the credentials, set during the call */
	struct progress *progress; /* ended when this returns */
};
/* Calls with the credentials that are kept for the image's registry; on_msg as rpc_stream has it.
 */
int transfer_call(struct cli *c, const struct transfer *t,
		  int (*on_msg)(const ProtobufCMessage *msg, void *arg), void *arg,
		  struct err *err) must_check;

#endif
