#include "cri/runtime/shim_client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/runtime/backend.h"
#include "proto/wkt.pb-c.h"

/* One run of the shim program: until its output has ended and it was reaped. */
struct run {
	struct huskd *huskd;
	const char *command;
	struct buf out;
	int out_fd;
	struct ev_io out_io;
	struct ev_child child;
	struct ev_timer timer;
	bool eof, exited, timed_out;
	int status;
	shim_start_fn start_done;
	shim_delete_fn delete_done;
	void *arg;
};

static void run_free(struct run *r)
{
	ev_io_del(&r->out_io);
	ev_timer_del(&r->timer);
	ev_child_del(&r->child);
	fd_close(&r->out_fd);
	buf_fini(&r->out);
	free(r);
}

int shim_parse_address(const char *text, size_t len, char **ret, struct err *err)
{
	const char *address;
	json_t *j = NULL;

	while (len > 0 && strchr(" \t\r\n", text[len - 1]) && text[len - 1])
		len--;
	cleanup_free char *plain = strndup(text, len);
	if (!plain)
		return err_nomem(err);
	address = plain;
	if (plain[0] == '{') {
		const char *protocol = NULL;
		int version = 0;
		j = json_loads(plain, 0, NULL);
		if (!j || json_unpack(j, "{s:i, s:s, s:s}", "version", &version, "address",
				      &address, "protocol", &protocol) < 0) {
			json_decref(j);
			return err_set(err, -EPROTO, "the shim printed no address: %.100s", plain);
		}
		if (version < 2 || version > 3 || strcmp(protocol, "ttrpc") != 0) {
			int r = err_set(err, -EPROTO, "the shim speaks %s version %d", protocol,
					version);
			json_decref(j);
			return r;
		}
	}
	int r = 0;
	if (!str_starts(address, "unix:///"))
		r = err_set(err, -EPROTO, "the shim printed no address: %.100s", plain);
	else if (!(*ret = strdup(address)))
		r = err_nomem(err);
	json_decref(j);
	return r;
}

static int run_result(struct run *r, struct err *err)
{
	if (r->timed_out)
		return err_set(err, -ETIMEDOUT, "%s %s took too long and was killed",
			       r->huskd->config.shim, r->command);
	if (WIFSIGNALED(r->status))
		return err_set(err, -EIO, "%s %s was killed by signal %d", r->huskd->config.shim,
			       r->command, WTERMSIG(r->status));
	if (WEXITSTATUS(r->status) != 0)
		return err_set(err, -EIO, "%s %s failed with status %d (its message is in the log)",
			       r->huskd->config.shim, r->command, WEXITSTATUS(r->status));
	return 0;
}

static void run_check(struct run *r)
{
	struct err err = { 0 };
	cleanup_free char *address = NULL;

	if (!r->eof || !r->exited)
		return;
	int code = run_result(r, &err);
	if (r->start_done && code == 0)
		code = shim_parse_address((const char *)buf_data(&r->out), buf_len(&r->out),
					  &address, &err);
	if (r->start_done)
		r->start_done(r->arg, code, address, &err);
	else
		r->delete_done(r->arg, code, &err);
	run_free(r);
}

static void on_output(struct ev_io *io, uint32_t events)
{
	struct run *r = io->arg;

	ssize_t n = buf_read_fd(&r->out, r->out_fd, 16 * KIB);
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	if (n == -ENOBUFS)
		log_warn("the shim prints too much", "command", r->command);
	ev_io_del(&r->out_io);
	r->eof = true;
	run_check(r);
}

static void on_exit_status(struct ev_child *c, int status)
{
	struct run *r = c->arg;

	r->exited = true;
	r->status = status;
	run_check(r);
}

static void on_timeout(struct ev_timer *t)
{
	struct run *r = t->arg;

	r->timed_out = true;
	if (!r->exited && r->child.pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, r->child.pidfd, SIGKILL, NULL, 0);
	/* A daemon that kept the output open must not hold us. */
	ev_io_del(&r->out_io);
	r->eof = true;
	run_check(r);
}

static int pack_options(const struct huskd *d, uint8_t **ret, size_t *ret_len)
{
	const struct config *c = &d->config;
	Shim__Options o = SHIM__OPTIONS__INIT;
	Wkt__Any any = WKT__ANY__INIT;

	o.vmm_path = c->vmm ? c->vmm : o.vmm_path;
	o.kernel = c->kernel ? c->kernel : o.kernel;
	o.initramfs = c->initramfs ? c->initramfs : o.initramfs;
	o.backend = (char *)backend_name(d->backend, c->backend);
	o.backend_reason = (char *)d->backend->reason;
	o.vcpus = c->vcpus;
	o.memory_mib = c->memory_mib;
	o.log_level = c->log_level;
	o.log_format = c->log_format;

	any.value.len = shim__options__get_packed_size(&o);
	any.value.data = malloc(any.value.len + 1);
	any.type_url = (char *)"husk.shim.v1.Options";
	cleanup_free uint8_t *inner = any.value.data;
	uint8_t *out = malloc(wkt__any__get_packed_size(&any) + 1);
	if (!inner || !out) {
		free(out);
		return -ENOMEM;
	}
	shim__options__pack(&o, any.value.data);
	*ret_len = wkt__any__pack(&any, out);
	*ret = out;
	return 0;
}

/* A pipe's read end that holds the options; they fit a pipe by far. */
static int options_pipe(const struct huskd *d, int *ret, struct err *err)
{
	cleanup_free uint8_t *data = NULL;
	cleanup_fd int rd = -1, wr = -1;
	size_t len = 0;
	int p[2];

	int r = pack_options(d, &data, &len);
	if (r < 0)
		return err_errno(err, r, "pack the shim's options");
	if (len > 32 * KIB)
		return err_set(err, -E2BIG, "the shim's options are too long");
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	rd = p[0];
	wr = p[1];
	r = write_all(wr, data, len);
	if (r < 0)
		return err_errno(err, r, "write the shim's options");
	*ret = take_fd(&rd);
	return 0;
}

static int run_spawn(struct run *r, const char *id, const char *bundle, struct err *err)
{
	struct huskd *d = r->huskd;
	cleanup_fd int in = -1, out = -1;
	int p[2], pidfd = -1;
	pid_t pid;
	char *argv[] = {
		d->config.shim,
		(char *)"-namespace",
		(char *)SHIM_NAMESPACE,
		(char *)"-address",
		d->config.listen,
		(char *)"-id",
		(char *)id,
		(char *)"-bundle",
		(char *)bundle,
		(char *)r->command,
		NULL,
	};

	int x = options_pipe(d, &in, err);
	if (x < 0)
		return x;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	r->out_fd = p[0];
	out = p[1];
	x = fd_set_nonblock(r->out_fd, true);
	if (x < 0)
		return err_errno(err, x, "pipe");
	struct spawn s = spawn_of(d->config.shim, argv);
	s.cwd = bundle;
	s.fds[0] = in;
	s.fds[1] = out;
	s.fds[2] = STDERR_FILENO;
	s.n_fds = 3;
	s.new_session = true;
	x = spawn_run(&s, &pid, &pidfd, err);
	if (x < 0)
		return x;
	x = ev_child_add(d->loop, &r->child, pid, pidfd, on_exit_status, r);
	if (x == 0)
		x = ev_io_add(d->loop, &r->out_io, r->out_fd, EPOLLIN, on_output, r);
	return x < 0 ? err_errno(err, x, "watch the shim") : 0;
}

static int run_start(struct huskd *d, const char *command, const char *id, const char *bundle,
		     const struct run *callbacks, uint64_t timeout_ms, struct err *err)
{
	struct run *r = calloc(1, sizeof(*r));

	if (!r)
		return err_nomem(err);
	*r = *callbacks;
	r->huskd = d;
	r->command = command;
	r->out_fd = -1;
	buf_init(&r->out, SHIM_OUTPUT_MAX);
	int x = ev_timer_add(d->loop, &r->timer, timeout_ms * NS_PER_MS, on_timeout, r);
	if (x < 0)
		(void)err_errno(err, x, "start a timer");
	else
		x = run_spawn(r, id, bundle, err);
	if (x < 0) {
		run_free(r);
		return err_wrap(err, x, "run the shim");
	}
	return 0;
}

int shim_start(struct huskd *d, const char *id, const char *bundle, shim_start_fn done, void *arg,
	       struct err *err)
{
	struct run callbacks = { .start_done = done, .arg = arg };

	return run_start(d, "start", id, bundle, &callbacks, SHIM_START_MS, err);
}

int shim_delete(struct huskd *d, const char *id, const char *bundle, shim_delete_fn done, void *arg,
		struct err *err)
{
	struct run callbacks = { .delete_done = done, .arg = arg };

	return run_start(d, "delete", id, bundle, &callbacks, SHIM_DELETE_MS, err);
}

int shim_connect(struct huskd *d, const char *address, void (*on_close)(void *arg), void *arg,
		 struct ttrpc_client **ret, struct err *err)
{
	struct ttrpc_client *c = NULL;
	int fd = -1;

	int r = unix_connect(address, &fd, err);
	if (r < 0)
		return r;
	r = ttrpc_client_new(d->loop, fd, on_close, arg, &c, err);
	if (r < 0)
		return r;
	r = ttrpc_client_set_metadata(c, "containerd-namespace-ttrpc", SHIM_NAMESPACE);
	if (r < 0) {
		ttrpc_client_free(c);
		return err_errno(err, r, "set the namespace");
	}
	*ret = c;
	return 0;
}
