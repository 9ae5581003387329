#include "cri/runtime/shim_client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/paths.h"
#include "cri/runtime/backend.h"
#include "proto/wkt.pb-c.h"

#define RUN_WORDS_MAX 400 /* of its standard error, in an error's text */
#define RUN_LOG_FD 3	  /* the descriptor for the daemon's log */

/* One run of the shim program: until its output has ended and it was reaped. */
struct run {
	struct huskd *huskd;
	const char *command;
	struct buf out;
	int out_fd;
	struct ev_io out_io;
	int words_fd; /* its standard error: read once, when it has ended */
	struct ev_child child;
	struct ev_timer timer;
	bool eof, exited, timed_out;
	int status;
	shim_start_fn start_done;
	shim_delete_fn delete_done;
	void *arg;
};

static void run_free(struct run *run)
{
	ev_io_del(&run->out_io);
	ev_timer_del(&run->timer);
	ev_child_del(&run->child);
	fd_close(&run->out_fd);
	fd_close(&run->words_fd);
	buf_fini(&run->out);
	free(run);
}

/* The address in {"version": 2 or 3, "address": TEXT, "protocol": "ttrpc"}; borrowed from j. */
static int json_address(json_t *j, const char *text, const char **ret, struct err *err)
{
	const char *protocol = NULL;
	int version = 0;

	if (json_unpack(j, "{s:i, s:s, s:s}", "version", &version, "address", ret, "protocol",
			&protocol) < 0)
		return err_set(err, -EPROTO, "the shim printed no address: %.100s", text);
	if (version < 2 || version > 3 || !str_eq(protocol, "ttrpc"))
		return err_set(err, -EPROTO, "the shim speaks %s version %d", protocol, version);
	return 0;
}

int shim_parse_address(const char *text, size_t len, char **ret, struct err *err)
{
	cleanup_free char *plain = NULL;
	const char *address;
	json_t *j = NULL;
	int r = 0;

	while (len > 0 && strchr(" \t\r\n", text[len - 1]) && text[len - 1])
		len--;
	address = plain = strndup(text, len);
	if (!plain)
		return err_nomem(err);
	if (plain[0] == '{') {
		j = json_loads(plain, 0, NULL);
		r = json_address(j, plain, &address, err);
	}
	if (r == 0 && !str_starts(address, "unix:///"))
		r = err_set(err, -EPROTO, "the shim printed no address: %.100s", plain);
	if (r == 0 && !(*ret = strdup(address)))
		r = err_nomem(err);
	json_decref(j);
	return r;
}

/* What the program wrote to its standard error, on one line, without its name in front. */
static void run_words(struct run *run, char *words, size_t size)
{
	static const char name[] = "containerd-shim-husk-v2: ";
	ssize_t n = run->words_fd < 0 ? -1 : read(run->words_fd, words, size - 1);
	size_t len = n > 0 ? (size_t)n : 0;

	while (len > 0 && (words[len - 1] == '\n' || words[len - 1] == ' '))
		len--;
	words[len] = '\0';
	for (char *s = words; (s = strchr(s, '\n'));)
		*s = ' ';
	if (str_starts(words, name))
		memmove(words, words + strlen(name), len + 1 - strlen(name));
}

static int run_result(struct run *run, struct err *err)
{
	char words[RUN_WORDS_MAX];

	run_words(run, words, sizeof(words));
	if (run->timed_out)
		return err_set(err, -ETIMEDOUT, "%s %s took too long and was killed",
			       run->huskd->config.shim, run->command);
	if (WIFSIGNALED(run->status))
		return err_set(err, -EIO, "%s %s was killed by signal %d%s%s",
			       run->huskd->config.shim, run->command, WTERMSIG(run->status),
			       *words ? ": " : "", words);
	if (WEXITSTATUS(run->status) != 0)
		return *words ? err_set(err, -EIO, "%s", words)
			      : err_set(err, -EIO, "%s %s failed with status %d and said nothing",
					run->huskd->config.shim, run->command,
					WEXITSTATUS(run->status));
	if (*words)
		log_limited(LOG_WARN, "the shim said", "command", run->command, "text", words);
	return 0;
}

static void run_check(struct run *run)
{
	struct err err = { 0 };
	cleanup_free char *address = NULL;
	int code;

	if (!run->eof || !run->exited)
		return;
	code = run_result(run, &err);
	if (run->start_done && code == 0)
		code = shim_parse_address((const char *)buf_data(&run->out), buf_len(&run->out),
					  &address, &err);
	if (run->start_done)
		run->start_done(run->arg, code, address, &err);
	else
		run->delete_done(run->arg, code, &err);
	run_free(run);
}

static void shim_client_on_output(struct ev_io *io, uint32_t events)
{
	struct run *run = io->arg;
	ssize_t n = buf_read_fd(&run->out, run->out_fd, 16 * KIB);

	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	if (n == -ENOBUFS)
		log_limited(LOG_WARN, "the shim prints too much", "command", run->command);
	ev_io_del(&run->out_io);
	run->eof = true;
	run_check(run);
}

static void shim_client_on_exit(struct ev_child *c, int status)
{
	struct run *run = c->arg;

	run->exited = true;
	run->status = status;
	run_check(run);
}

static void shim_client_on_timeout(struct ev_timer *t)
{
	struct run *run = t->arg;

	run->timed_out = true;
	if (!run->exited)
		(void)pidfd_signal(run->child.pidfd, SIGKILL);
	/* A daemon that kept the output open must not hold us. */
	ev_io_del(&run->out_io);
	run->eof = true;
	run_check(run);
}

static int pack_options(const struct huskd *d, uint8_t **ret, size_t *ret_len, struct err *err)
{
	const struct config *c = &d->config;
	Shim__Options o = SHIM__OPTIONS__INIT;
	cleanup_free uint8_t *inner = NULL;
	cleanup_free char *sockets = NULL;
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
	o.log_fd = RUN_LOG_FD;
	o.socket_dir = sockets = path_shims(d);
	if (!sockets)
		return err_nomem(err);

	any.type_url = (char *)"husk.shim.v1.Options";
	any.value.data = inner = pb_pack(&o.base, &any.value.len);
	*ret = inner ? pb_pack(&any.base, ret_len) : NULL;
	return *ret ? 0 : err_nomem(err);
}

/* A pipe's read end that holds the options; they fit a pipe by far. */
static int options_pipe(const struct huskd *d, int *ret, struct err *err)
{
	cleanup_free uint8_t *data = NULL;
	cleanup_fd int rd = -1, wr = -1;
	size_t len = 0;
	int p[2];
	int r = pack_options(d, &data, &len, err);

	if (r < 0)
		return r;
	if (len > 32 * KIB)
		return err_set(err, -E2BIG, "the shim's options are too long");
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "make a pipe");
	rd = p[0];
	wr = p[1];
	r = write_all(wr, data, len);
	if (r < 0)
		return err_errno(err, r, "write the shim's options");
	*ret = take_fd(&rd);
	return 0;
}

static int run_spawn(struct run *run, const char *id, const char *bundle, struct err *err)
{
	struct huskd *d = run->huskd;
	cleanup_fd int in = -1, out = -1, words = -1;
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
		(char *)run->command,
		NULL,
	};
	int r = options_pipe(d, &in, err);
	struct spawn s;

	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "make a pipe");
	run->out_fd = p[0];
	out = p[1];
	r = fd_set_nonblock(run->out_fd, true);
	if (r < 0)
		return err_errno(err, r, "make a pipe");
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_errno(err, -errno, "make a pipe");
	run->words_fd = p[0];
	words = p[1]; /* more than it holds is nothing to wait for */
	s = spawn_of(d->config.shim, argv, OOM_SCORE_SHIM);
	s.cwd = bundle;
	s.fds[0] = in;
	s.fds[1] = out;
	s.fds[2] = words;
	s.fds[RUN_LOG_FD] = STDERR_FILENO;
	s.n_fds = RUN_LOG_FD + 1;
	s.new_session = true;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return r;
	r = ev_child_add(d->loop, &run->child, pid, pidfd, shim_client_on_exit, run);
	if (r == 0)
		r = ev_io_add(d->loop, &run->out_io, run->out_fd, EPOLLIN, shim_client_on_output,
			      run);
	return r < 0 ? err_errno(err, r, "watch the shim") : 0;
}

static int run_start(struct huskd *d, const char *command, const char *id, const char *bundle,
		     const struct run *callbacks, uint64_t timeout_ms, struct err *err)
{
	struct run *run = calloc(1, sizeof(*run));
	int r;

	if (!run)
		return err_nomem(err);
	*run = *callbacks;
	run->huskd = d;
	run->command = command;
	run->out_fd = run->words_fd = -1;
	buf_init(&run->out, SHIM_OUTPUT_MAX);
	r = ev_timer_add(d->loop, &run->timer, timeout_ms * NS_PER_MS, shim_client_on_timeout, run);
	if (r < 0)
		(void)err_errno(err, r, "start a timer");
	else
		r = run_spawn(run, id, bundle, err);
	if (r < 0) {
		run_free(run);
		return err_wrap(err, r, "the shim");
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

int shim_start_exit_code(const struct ttrpc_result *res)
{
	Shim__StartError *e;
	int code = 0;

	if (!str_eq(res->detail_type, "husk.shim.v1.StartError"))
		return 0;
	e = shim__start_error__unpack(NULL, res->detail_len, res->detail);
	if (!e)
		return 0;
	if (e->exit_code >= 126 && e->exit_code <= 128)
		code = (int)e->exit_code;
	shim__start_error__free_unpacked(e, NULL);
	return code;
}
