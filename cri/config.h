/*
 * The settings of huskd: a YAML file, and flags of the same names; flags win. huskd.8 describes
 * them. Paths are made absolute. Read once at the start, read-only afterwards.
 */
#ifndef HUSK_CRI_CONFIG_H
#define HUSK_CRI_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/log.h"

#define CONFIG_FILE_MAX (64 * KIB)
#define CONFIG_LIST_MAX 1000
#define CONFIG_LAYERS_AT_ONCE_MAX 16
#define CONFIG_LAYERS_IN_ALL_MAX 64
#define CONFIG_RESERVE_MIB_MAX (1024u * 1024)
#define CONFIG_UID_MAX 4294900000u
#define CONFIG_WORKER_UIDS_MAX 65536u

struct config {
	char *root;	    /* what survives a reboot: database, images, container disks */
	char *state;	    /* what does not: bundles, sockets */
	char *listen;	    /* "unix:///run/husk/husk.sock" */
	char *backend;	    /* "auto", "kvm", "qemu" */
	char *kernel;	    /* NULL = the shim's default, ../share/husk/vmlinux */
	char *initramfs;    /* NULL = the shim's default, ../share/husk/initramfs.cpio */
	char *shim;	    /* containerd-shim-husk-v2; default beside huskd */
	char *vmm;	    /* husk-vmm; NULL = beside the shim */
	char *image_worker; /* NULL = beside huskd */
	char *log_level;
	char *log_format; /* "text", "json" */
	uint32_t vcpus;	  /* of a pod that asks for nothing; 0 = the shim's default */
	uint32_t memory_mib;
	/* streaming: where clients of exec come to; port 0 = any that is free */
	char *stream_address; /* default 127.0.0.1 */
	uint32_t stream_port;
	/* network: */
	char *network_mode;	 /* "auto", "cni", "none" */
	char *network_conf_dir;	 /* default /etc/cni/net.d */
	char **network_bin_dirs; /* NULL = /opt/cni/bin, /usr/lib/cni */
	/* images: */
	bool keep_blobs; /* compressed layers stay for push, save and repair; default true */
	char **pinned;	 /* names of images that are never pruned; NULL = none */
	char *hosts_dir; /* certs.d of containerd; default /etc/containerd/certs.d */
	uint32_t layers_at_once, layers_in_all; /* fetched by one pull; by all */
	uint32_t reserve_mib; /* of the disk, not for images; 0 = the engine's default */
	uint32_t worker_uid_first, worker_uids; /* 0 = the engine's default */
};

enum config_action { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION };

/* argv as main got it. -EINVAL with a text that names the flag, or the file and line. */
int config_load(int argc, char **argv, struct config *ret, enum config_action *action,
		struct err *err) must_check;
/* The text of a YAML file over what is in *c already; `name` is for error texts. */
int config_parse_yaml(struct config *c, const char *name, const char *text, size_t len,
		      struct err *err) must_check;
void config_fini(struct config *c);
extern const char config_usage[];

#endif
