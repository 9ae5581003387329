#include "cri/net/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/spawn.h"
#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/result.h"

#define PLUGIN_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define PLUGIN_ENV_MAX 4096u
#define PLUGIN_LINE 300 /* of its own words, in an error's text */

static char *join_dirs(char *const *dirs, const char *between)
{
	cleanup_buf struct buf b;
	int r = 0;

	buf_init(&b, 64 * KIB);
	for (char *const *d = dirs; d && *d && r == 0; d++)
		r = buf_printf(&b, "%s%s", d == dirs ? "" : between, *d);
	return r == 0 ? buf_take_str(&b) : NULL;
}

int plugin_find(char *const *bin_dirs, const char *type, char **ret, struct err *err)
{
	cleanup_free char *all = NULL;

	for (char *const *d = bin_dirs; d && *d; d++) {
		cleanup_free char *path = str_fmt("%s/%s", *d, type);

		if (!path)
			return err_nomem(err);
		if (access(path, X_OK) == 0) {
			*ret = take_ptr(&path);
			return 0;
		}
	}
	all = join_dirs(bin_dirs, ", ");
	return err_set(err, -ENOENT, "plug-in %s is not in %s", type, all ? all : "");
}

/* ---- its end ---- */

static bool wants_output(enum cni_command c)
{
	return c == CNI_ADD || c == CNI_VERSION;
}

/* {"code": NUMBER, "msg": TEXT, "details": TEXT} */
static bool own_error(struct plugin_run *run, struct err *err)
{
	cleanup_json json_t *j = NULL;
	const char *msg, *details;
	char line[PLUGIN_LINE], more[PLUGIN_LINE];

	if (net_json_parse((const char *)buf_data(&run->out), buf_len(&run->out), &j, NULL) < 0)
		return false;
	msg = net_json_str(j, "msg");
	details = net_json_str(j, "details");
	if (str_empty(msg))
		return false;
	if (json_is_integer(json_object_get(j, "code")))
		run->cni_code = (int)json_integer_value(json_object_get(j, "code"));
	net_json_line(line, sizeof(line), msg, strlen(msg));
	net_json_line(more, sizeof(more), details ? details : "", details ? strlen(details) : 0);
	(void)err_set(err, -EIO, "plug-in %s: %s%s%s (code %d)", run->type, line, *more ? ": " : "",
		      more, run->cni_code);
	return true;
}

static int exit_error(struct plugin_run *run, int status, struct err *err)
{
	const struct buf *b = buf_len(&run->words) ? &run->words : &run->out;
	char line[PLUGIN_LINE];

	net_json_line(line, sizeof(line), (const char *)buf_data(b), buf_len(b));
	if (WIFSIGNALED(status))
		return err_set(err, -EIO, "plug-in %s was killed by signal %d%s%s", run->type,
			       WTERMSIG(status), *line ? ": " : "", line);
	if (own_error(run, err))
		return -EIO;
	return err_set(err, -EIO, "plug-in %s failed with status %d and no error of CNI's form%s%s",
		       run->type, WEXITSTATUS(status), *line ? ": " : "", line);
}

static int run_result(struct plugin_run *run, int status, json_t **ret, struct err *err)
{
	int r;

	if (run->aborted)
		return err_set(err, -ECANCELED,
			       "plug-in %s was ended, as it is not wanted any more", run->type);
	if (run->timed_out)
		return err_set(err, -ETIMEDOUT,
			       "plug-in %s did not end within %llu ms and was killed", run->type,
			       (unsigned long long)run->timeout_ms);
	if (run->flood)
		return err_set(err, -EFBIG, "plug-in %s printed more than %zu KiB and was killed",
			       run->type, NET_RESULT_MAX / KIB);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return exit_error(run, status, err);
	if (!wants_output(run->command))
		return 0;
	if (buf_len(&run->out) == 0)
		return err_set(err, -EPROTO, "plug-in %s printed nothing, a result was expected",
			       run->type);
	r = net_json_parse((const char *)buf_data(&run->out), buf_len(&run->out), ret, err);
	return r < 0 ? err_wrap(err, r, "plug-in %s printed no result", run->type) : 0;
}

static void run_fini(struct plugin_run *run)
{
	ev_timer_del(&run->timer);
	ev_io_del(&run->out_io);
	ev_io_del(&run->words_io);
	ev_child_del(&run->child);
	fd_close(&run->out_fd);
	fd_close(&run->words_fd);
	buf_fini(&run->out);
	buf_fini(&run->words);
}

/* The number is nobody else's as long as the process is not reaped. */
static void kill_group(struct plugin_run *run)
{
	if (run->child.io.loop)
		(void)kill(-run->child.pid, SIGKILL);
}

static void read_words(struct plugin_run *run)
{
	uint8_t part[PLUGIN_WORDS_MAX];
	size_t len = buf_len(&run->words);
	ssize_t n = read(run->words_fd, part, sizeof(part));

	if (n == 0)
		ev_io_del(&run->words_io);
	if (n <= 0)
		return;
	if (len + (size_t)n > PLUGIN_WORDS_MAX)
		buf_consume(&run->words, len + (size_t)n - PLUGIN_WORDS_MAX);
	(void)!buf_put(&run->words, part, (size_t)n); /* without memory: fewer words */
}

static void plugin_on_words(struct ev_io *io, uint32_t events)
{
	read_words(io->arg);
}

/* Bytes read, 0 = no more, or a limit was hit. */
static ssize_t read_out(struct plugin_run *run)
{
	ssize_t n = buf_read_fd(&run->out, run->out_fd, 64 * KIB);

	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return MAX_OF(n, 0);
	if (n < 0) {
		run->flood = true;
		kill_group(run);
	}
	ev_io_del(&run->out_io);
	return 0;
}

static void plugin_on_out(struct ev_io *io, uint32_t events)
{
	(void)read_out(io->arg);
}

/* What it wrote is in the pipes. Children that live on (a daemon) are not waited for. */
static void plugin_on_exit(struct ev_child *c, int status)
{
	struct plugin_run *run = c->arg;
	cleanup_json json_t *out = NULL;
	struct err err = { 0 };
	int r;

	while (run->out_io.loop && read_out(run) > 0)
		;
	if (run->words_io.loop)
		read_words(run);
	r = run_result(run, status, &out, &err);
	run_fini(run);
	run->done(run, r, out, &err);
}

static void plugin_on_timeout(struct ev_timer *t)
{
	struct plugin_run *run = t->arg;

	run->timed_out = true;
	kill_group(run);
}

/* ---- its start ---- */

/* Takes what it is given; NULL = there was no memory for it. */
static int add_env(char **env, size_t *n, char *entry)
{
	if (!entry)
		return -ENOMEM;
	env[(*n)++] = entry;
	return 0;
}

/* Huskd's own environment, as plug-ins of any runtime have it, without what is CNI's. */
static int make_env(const struct plugin_call *c, char ***ret)
{
	const struct {
		const char *name, *value;
	} own[] = {
		{ "CNI_COMMAND", cni_command_name(c->command) },
		{ "CNI_CONTAINERID", c->id },
		{ "CNI_NETNS", c->netns },
		{ "CNI_IFNAME", c->ifname },
		{ "CNI_ARGS", c->args },
	};
	cleanup_strv char **env = calloc(PLUGIN_ENV_MAX + ARRAY_SIZE(own) + 3, sizeof(*env));
	cleanup_free char *path = join_dirs(c->bin_dirs, ":");
	int r = env && path ? 0 : -ENOMEM;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(own) && r == 0; i++)
		r = add_env(env, &n,
			    str_fmt("%s=%s", own[i].name, own[i].value ? own[i].value : ""));
	if (r == 0)
		r = add_env(env, &n, str_fmt("CNI_PATH=%s", path));
	if (r == 0 && !getenv("PATH"))
		r = add_env(env, &n, strdup(PLUGIN_PATH));
	for (char **e = environ; *e && n < PLUGIN_ENV_MAX && r == 0; e++) {
		if (!str_starts(*e, "CNI_"))
			r = add_env(env, &n, strdup(*e));
	}
	if (r == 0)
		*ret = take_ptr(&env);
	return r;
}

/* A file, not a pipe: nobody has to wait until the plug-in reads. */
static int config_file(json_t *config, int *ret)
{
	cleanup_fd int fd = memfd_create("cni", MFD_CLOEXEC);
	cleanup_free char *text = json_dumps(config, JSON_COMPACT);
	int r;

	if (!text)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, strlen(text));
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		*ret = take_fd(&fd);
	return r;
}

static int make_pipe(int *ret_rd, int *ret_wr)
{
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	*ret_rd = p[0];
	*ret_wr = p[1];
	r = fd_set_nonblock(p[0], true);
	return r;
}

static int run_spawn(struct plugin_run *run, const struct plugin_call *call, const char *path,
		     struct err *err)
{
	cleanup_fd int in = -1, out = -1, words = -1;
	char *argv[] = { (char *)call->type, NULL };
	cleanup_strv char **env = NULL;
	int pidfd, r = make_env(call, &env);
	struct spawn s;
	pid_t pid;

	if (r == 0)
		r = config_file(call->config, &in);
	if (r == 0)
		r = make_pipe(&run->out_fd, &out);
	if (r == 0)
		r = make_pipe(&run->words_fd, &words);
	if (r < 0)
		return err_errno(err, r, "start plug-in %s", call->type);
	s = spawn_of(path, argv, OOM_SCORE_POD);
	s.envp = env;
	s.cwd = "/";
	s.fds[0] = in;
	s.fds[1] = out;
	s.fds[2] = words;
	s.fds[PLUGIN_LOCK_FD] = call->lock_fd;
	s.n_fds = call->lock_fd < 0 ? 3 : PLUGIN_LOCK_FD + 1;
	s.new_session = true;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return err_wrap(err, r, "plug-in");
	r = ev_child_add(run->loop, &run->child, pid, pidfd, plugin_on_exit, run);
	if (r < 0) {
		(void)kill(-pid, SIGKILL);
		(void)waitpid(pid, NULL, __WALL);
		return err_errno(err, r, "watch plug-in %s", call->type);
	}
	return 0;
}

int plugin_start(struct plugin_run *run, struct loop *l, const struct plugin_call *call,
		 plugin_fn done, struct err *err)
{
	cleanup_free char *path = NULL;
	int r;

	check(!plugin_runs(run));
	run->cni_code = 0;
	r = plugin_find(call->bin_dirs, call->type, &path, err);
	if (r < 0)
		return r;
	*run = (struct plugin_run){ .loop = l,
				    .command = call->command,
				    .out_fd = -1,
				    .words_fd = -1,
				    .timeout_ms = call->timeout_ms,
				    .done = done };
	(void)snprintf(run->type, sizeof(run->type), "%s", call->type);
	buf_init(&run->out, NET_RESULT_MAX);
	buf_init(&run->words, PLUGIN_WORDS_MAX);
	r = run_spawn(run, call, path, err);
	if (r == 0) {
		r = ev_io_add(l, &run->out_io, run->out_fd, EPOLLIN, plugin_on_out, run);
		if (r == 0)
			r = ev_io_add(l, &run->words_io, run->words_fd, EPOLLIN, plugin_on_words,
				      run);
		if (r == 0)
			r = ev_timer_add(l, &run->timer, call->timeout_ms * NS_PER_MS,
					 plugin_on_timeout, run);
		if (r < 0)
			(void)err_errno(err, r, "watch plug-in %s", call->type);
	}
	if (r < 0)
		plugin_stop(run);
	return r;
}

bool plugin_runs(const struct plugin_run *run)
{
	return run->child.io.loop != NULL;
}

void plugin_abort(struct plugin_run *run)
{
	run->aborted = true;
	kill_group(run);
}

void plugin_stop(struct plugin_run *run)
{
	if (!run->loop)
		return;
	if (plugin_runs(run)) {
		kill_group(run);
		(void)waitpid(run->child.pid, NULL, __WALL);
	}
	run_fini(run);
}
