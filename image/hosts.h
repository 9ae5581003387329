/*
 * Where the images of a registry come from: containerd's certs.d/<host>/hosts.toml (or Docker's
 * certificate files beside it), read by huskd for each pull and handed to its fetch process, which
 * reads no files. Pure but for hosts_load. Any thread.
 */
#ifndef HUSK_IMAGE_HOSTS_H
#define HUSK_IMAGE_HOSTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

#define HOSTS_MAX 16		   /* endpoints, the server counted */
#define HOSTS_MAX_FILE (256 * KIB) /* hosts.toml */
#define HOSTS_MAX_PEM (1 * MIB)	   /* all certificates of one endpoint */
#define HOSTS_MAX_HEADERS 32	   /* of one endpoint */
#define HOSTS_MAX_BYTES (8 * MIB)  /* all of it */
#define HOSTS_DIR "/etc/containerd/certs.d"

enum { HOST_PULL = 1, HOST_RESOLVE = 2, HOST_PUSH = 4, HOST_ALL = 7 };

struct host {
	char *url; /* the API's root: "https://mirror.example:5000/v2", without a slash at the end
		    */
	unsigned capabilities;
	bool skip_verify;
	bool login;	  /* it gets the credentials of the pull */
	bool mirror;	  /* not the server itself */
	bool ns;	  /* its name is not the registry's, so requests to it carry ?ns=REGISTRY */
	char *ca;	  /* PEM, beside those of the system; NULL = none */
	char *cert, *key; /* PEM of the client; NULL = none. cert may have the key in it. */
	char **headers;	  /* "Name: value"; NULL = none */
};

/* In the order of trying: mirrors, then the server itself. */
struct hosts {
	struct host v[HOSTS_MAX];
	size_t n;
	char *file; /* path of the hosts.toml that was read; NULL = there is none */
};

/*
 * For images of `host` ("docker.io", "registry.example:5000"). Looks in `dir` (NULL or missing =
 * defaults only) for <host>_<port>_, <host>:<port>, _default. Without any: HTTPS, or HTTP for hosts
 * on this machine. -EINVAL: file and line of what is wrong.
 */
int hosts_load(const char *dir, const char *host, struct hosts *ret, struct err *err) must_check;
/* hosts.toml's text; certificate files are relative to `base`. `name` is for errors. */
int hosts_parse(const char *text, size_t len, const char *name, const char *base, const char *host,
		struct hosts *ret, struct err *err) must_check;
void hosts_fini(struct hosts *h);
/* A deep copy of one host, for callers that build their own list. -ENOMEM. */
int host_copy(const struct host *from, struct host *ret) must_check;
void host_fini(struct host *h);

#endif
