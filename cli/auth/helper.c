#include "cli/auth/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/spawn.h"
#include "base/util.h"

#define PREFIX "docker-credential-"
/* What a helper gives as the user name when the secret is an identity token. */
#define TOKEN_USER "<token>"

/* In $PATH; the name comes from a file that its user wrote, but is still only a name. */
static int find_program(const char *name, char **ret, struct err *err)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return err_set(err, -EINVAL, "'%s' is not a name of a credential helper", name);
	for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
		size_t n = strcspn(p, ":");
		cleanup_free char *file = str_fmt("%.*s/" PREFIX "%s", (int)n, p, name);

		if (!file)
			return err_nomem(err);
		if (n && access(file, X_OK) == 0) {
			*ret = take_ptr(&file);
			return 0;
		}
		p += n + (p[n] == ':');
	}
	return err_set(err, -ENOEXEC, "the credential helper " PREFIX "%s is not in $PATH", name);
}

/* Runs it; *ret_ok: it ended with 0. *ret_out: what it said, for the caller to wipe and free. */
static int run(const char *name, const char *verb, const char *input, char **ret_out, bool *ret_ok,
	       struct err *err)
{
	cleanup_free char *path = NULL;
	cleanup_fd int in_r = -1, in_w = -1, out_r = -1, out_w = -1, pidfd = -1;
	int p[2], status = 0, r = find_program(name, &path, err);
	char *const argv[] = { path, (char *)verb, NULL };
	struct spawn s = spawn_of(path, argv, OOM_SCORE_KEEP);
	void (*before)(int);
	pid_t pid;

	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	in_r = p[0];
	in_w = p[1];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	out_r = p[0];
	out_w = p[1];
	s.fds[0] = in_r;
	s.fds[1] = out_w;
	s.fds[2] = STDERR_FILENO;
	s.n_fds = 3;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return r;
	fd_close(&in_r);
	fd_close(&out_w);
	/* Less than a pipe holds. One that does not read it says so by its exit code. */
	before = signal(SIGPIPE, SIG_IGN);
	(void)!write(in_w, input, strlen(input));
	(void)signal(SIGPIPE, before);
	fd_close(&in_w);
	r = read_fd(out_r, HELPER_MAX_ANSWER, ret_out, NULL);
	fd_close(&out_r);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	*ret_ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return r < 0 ? err_errno(err, r, "%s", path) : 0;
}

static void drop(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* The first line of an answer that is an error. */
static int failed(const char *name, const char *verb, char *out, struct err *err)
{
	out[strcspn(out, "\r\n")] = '\0';
	return err_set(err, -EIO, PREFIX "%s %s: %.200s", name, verb, *out ? out : "failed");
}

static int parse(const char *name, const char *out, struct auth *ret, struct err *err)
{
	json_t *j = json_loads(out, 0, NULL);
	const char *user = json_string_value(json_object_get(j, "Username"));
	const char *secret = json_string_value(json_object_get(j, "Secret"));
	struct auth a = { 0 };
	int r = 0;

	if (!user || !secret)
		r = err_set(err, -EPROTO, PREFIX "%s get: the answer has no Username and Secret",
			    name);
	else if (str_eq(user, TOKEN_USER))
		r = (a.identity_token = strdup(secret)) ? 0 : err_nomem(err);
	else if (!(a.username = strdup(user)) || !(a.password = strdup(secret)))
		r = err_nomem(err);
	json_decref(j);
	if (r < 0)
		auth_fini(&a);
	else
		*ret = a;
	return r;
}

int helper_get(const char *name, const char *key, struct auth *ret, struct err *err)
{
	char *out = NULL;
	bool ok = false;
	int r = run(name, "get", key, &out, &ok, err);

	if (r < 0)
		return r;
	if (ok)
		r = parse(name, out, ret, err);
	else if (strstr(out, "credentials not found"))
		r = err_set(err, -ENOENT, "no credentials");
	else
		r = failed(name, "get", out, err);
	drop(out);
	return r;
}

int helper_store(const char *name, const char *key, const struct auth *a, struct err *err)
{
	json_t *j = json_pack("{s:s, s:s, s:s}", "ServerURL", key, "Username",
			      a->identity_token ? TOKEN_USER : a->username, "Secret",
			      a->identity_token ? a->identity_token : a->password);
	char *in = j ? json_dumps(j, JSON_COMPACT) : NULL, *out = NULL;
	bool ok = false;
	int r;

	json_decref(j);
	if (!in)
		return err_set(err, -EINVAL, "the credentials cannot be written as JSON");
	r = run(name, "store", in, &out, &ok, err);
	if (r == 0 && !ok)
		r = failed(name, "store", out, err);
	drop(in);
	drop(out);
	return r;
}

int helper_erase(const char *name, const char *key, struct err *err)
{
	char *out = NULL;
	bool ok = false;
	int r = run(name, "erase", key, &out, &ok, err);

	if (r == 0 && !ok)
		r = failed(name, "erase", out, err);
	drop(out);
	return r;
}
