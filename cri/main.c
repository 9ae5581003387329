/* huskd: the CRI server. The order of the start is the order of main(). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/util.h"
#include "cri/husk_service.h"
#include "cri/huskd.h"
#include "cri/images/service.h"
#include "cri/net/net.h"
#include "cri/paths.h"
#include "cri/rpc/grpc.h"
#include "cri/runtime/backend.h"
#include "cri/runtime/recover.h"
#include "cri/runtime/service.h"
#include "cri/store/statedb.h"
#include "cri/stream/server.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

static void main_on_signal(struct ev_signal *s, int signo)
{
	struct huskd *d = s->arg;

	if (signo == SIGHUP) /* a terminal was closed: huskd continues */
		return;
	log_info("ending; pods go on", "signal", strsignal(signo));
	backend_fini(d->backend);
	loop_stop(d->loop, 0);
}

static int open_stores(struct huskd *d, struct err *err)
{
	cleanup_free char *db = path_db(d), *images = path_images(d);
	struct image_store_options o = {
		.loop = d->loop,
		.dir = images,
		.worker = d->config.image_worker,
		.pinned = d->config.pinned,
		.drop_blobs = !d->config.keep_blobs,
		.hosts_dir = d->config.hosts_dir,
		.max_layers_at_once = d->config.layers_at_once,
		.max_layers_in_all = d->config.layers_in_all,
		.reserve = (uint64_t)d->config.reserve_mib * MIB,
		.worker_uid_first = d->config.worker_uid_first,
		.worker_uids = d->config.worker_uids,
	};
	int r = db && images ? 0 : err_nomem(err);

	if (r == 0)
		r = statedb_open(d->loop, db, &d->db, err);
	if (r == 0) {
		state_init(&d->state, d->db, d);
		r = state_load(&d->state, err);
		if (r < 0)
			(void)err_wrap(err, r, "load %s", db);
	}
	if (r == 0)
		r = image_store_open(&o, &d->images, err);
	return r;
}

static int open_net(struct huskd *d, struct err *err)
{
	cleanup_free char *dir = path_net(d);
	struct net_options o = { .loop = d->loop,
				 .dir = dir,
				 .conf_dir = d->config.network_conf_dir,
				 .bin_dirs = d->config.network_bin_dirs };
	int r;

	if (str_eq(d->config.network_mode, "none"))
		return 0;
	if (!dir)
		return err_nomem(err);
	r = net_open(&o, &d->net, err);
	/* Where something has run out, the pods of before have networks: it is no host without. */
	if (r < 0 && r != -EMFILE && r != -ENFILE && r != -ENOSPC && r != -ENOMEM &&
	    str_eq(d->config.network_mode, "auto")) {
		log_warn("pods run without a network", "err", err_text(err));
		return 0;
	}
	return r < 0 ? err_wrap(err, r, "networks of pods") : 0;
}

/* Without this, the first pod would be the one to find out. */
static void warn_missing(const struct config *c)
{
	const char *const files[] = { c->shim, c->vmm, c->kernel, c->initramfs, c->image_worker };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i] && access(files[i], R_OK) < 0)
			log_warn("a file is missing, pods will not start", "path", files[i], "err",
				 strerror(errno));
	}
}

static void main_serve(struct huskd *d)
{
	struct err err = { 0 };
	cleanup_free char *dir = strdup(d->config.listen + strlen("unix://"));
	char *slash = dir ? strrchr(dir, '/') : NULL;
	int fd = -1, r = 0;
	char pods[16];

	if (!d->rpc) /* the end came before the recovery's */
		return;
	if (slash && slash != dir) {
		*slash = '\0';
		r = mkdir_p(dir, 0755, &err);
	}
	if (r == 0)
		r = unix_listen(d->config.listen, 0660, &fd, &err);
	if (r == 0)
		r = rpc_server_listen(d->rpc, fd, &err);
	if (r < 0) {
		log_error("cannot serve", "listen", d->config.listen, "err", err_text(&err));
		loop_stop(d->loop, r);
		return;
	}
	(void)snprintf(pods, sizeof(pods), "%u", d->state.n_pods);
	log_info("huskd serves", "version", HUSK_VERSION, "listen", d->config.listen, "root",
		 d->config.root, "backend", d->config.backend, "streams",
		 stream_server_address(d->streams), "pods", pods);
}

static int run(struct huskd *d, struct err *err)
{
	static const char later[] = "it comes with a later version";
	const struct rpc_service services[] = {
		{ &cri__runtime_service__descriptor, runtime_service_methods, d, later },
		{ &cri__image_service__descriptor, image_service_methods, d, later },
		{ &husk__husk__descriptor, husk_service_methods, d, later },
	};
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	cleanup_fd int lock_root = -1, lock_state = -1;
	int locks[2] = { -1, -1 };
	struct backend backend = { 0 };
	struct ev_signal sig = { 0 };
	int r = loop_new(&d->loop, err);

	if (r < 0)
		return r;
	d->backend = &backend;
	r = ev_signal_add(d->loop, &sig, signals, ARRAY_SIZE(signals), main_on_signal, d, err);
	if (r == 0)
		r = path_prepare(d, locks, err);
	lock_root = locks[0];
	lock_state = locks[1];
	if (r == 0)
		r = open_stores(d, err);
	if (r == 0)
		r = open_net(d, err);
	if (r == 0)
		r = rpc_server_new(d->loop, services, ARRAY_SIZE(services), &d->rpc, err);
	if (r == 0)
		r = stream_server_new(d->loop, d->config.stream_address,
				      (uint16_t)d->config.stream_port, STREAM_IDLE_S, &d->streams,
				      err);
	if (r == 0) {
		warn_missing(&d->config);
		if (str_eq(d->config.backend, "auto"))
			backend_probe(&backend, d->loop, d->config.vmm);
		r = recover_start(d, main_serve, err);
	}
	if (r == 0) {
		r = loop_run(d->loop);
		if (r < 0)
			(void)err_set(err, r, "ended by an error (see the log)");
	}
	/* Open calls are cancelled, which starts their undoing; what takes longer than two seconds
	 * is left to the next huskd. Connections to shims just end: the pods go on. */
	stream_server_free(take_ptr(&d->streams));
	rpc_server_free(take_ptr(&d->rpc));
	net_close(take_ptr(&d->net));
	image_store_close(d->images);
	statedb_close(d->db);
	return r;
}

int main(int argc, char **argv)
{
	struct huskd d = { 0 };
	struct err err = { 0 };
	enum config_action action = CONFIG_RUN;
	enum log_level level = LOG_INFO;
	int r;

	/* Else a database or a lock may have the log's number. */
	if (open_std_fds() < 0)
		return 1;
	r = config_load(argc, argv, &d.config, &action, &err);
	if (r < 0) {
		(void)fprintf(stderr, "huskd: %s\n", err_text(&err));
		return 2;
	}
	if (action == CONFIG_HELP) {
		(void)fputs(config_usage, stdout);
		return 0;
	}
	if (action == CONFIG_VERSION) {
		(void)puts("huskd " HUSK_VERSION);
		return 0;
	}
	(void)!log_level_parse(d.config.log_level, &level);
	log_init("huskd", STDERR_FILENO, level, str_eq(d.config.log_format, "json"));
	(void)umask(022);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)!raise_nofile(RLIM_INFINITY);
	r = run(&d, &err);
	if (r < 0) {
		log_error("huskd cannot go on", "err", err_text(&err));
		return 1;
	}
	return 0;
}
