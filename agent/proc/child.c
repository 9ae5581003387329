#include "agent/proc/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/proc/caps.h"
#include "agent/proc/report.h"
#include "agent/proc/rlimit.h"
#include "agent/proc/sysctl.h"
#include "agent/proc/user.h"
#include "agent/rootfs/mnt.h"
#include "agent/rootfs/mounts.h"
#include "agent/rootfs/path.h"
#include "base/util.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define DEFAULT_CWD "/"
#define DEFAULT_UMASK 022
/* What a process gets that asks for no limit: programs that close all possible descriptors must not
 * take minutes, programs that want many can raise it. */
#define NOFILE_SOFT 1024
#define NOFILE_HARD 524288

/* Ends the child: reports where and why. */
noreturn_fn static void child_fail(const struct child_job *j, const char *stage, int code,
				   const char *text)
{
	struct report rep = { .kind = REPORT_FAILED, .error = -code };

	snprintf(rep.stage, sizeof(rep.stage), "%s", stage);
	snprintf(rep.text, sizeof(rep.text), "%s", text);
	/* If this fails there is no other way to report: the exit code has to do. */
	(void)!report_send(j->report, &rep, -1);
	_exit(255);
}

static void must(const struct child_job *j, const char *stage, int code, const char *what)
{
	struct err err = { 0 };

	if (code >= 0)
		return;
	err_errno(&err, code, "%s", what);
	child_fail(j, stage, code, err.msg);
}

static void must_err(const struct child_job *j, const char *stage, int code, const struct err *err)
{
	if (code < 0)
		child_fail(j, stage, code, err_text(err));
}

/* The stage that the child is in is its name: so the agent can say where one hangs, and `ps`
 * shows it. */
static void enter_stage(const char *name)
{
	(void)prctl(PR_SET_NAME, name, 0, 0, 0);
}

/* ---- standard streams ---- */

/* fds[] become 0, 1, 2; none of them is below 3. */
static void set_std(const struct child_job *j, const int fds[3])
{
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			must(j, "stdio", -errno, "dup2");
}

/* The program may open its streams again through /proc/self/fd, also when it is not root. */
static void own_std(const struct child_job *j, const struct user *u)
{
	for (int i = 0; i < 3; i++) {
		struct stat st;

		if (fstat(i, &st) < 0)
			must(j, "stdio", -errno, "fstat");
		if (S_ISCHR(st.st_mode) && !isatty(i))
			continue; /* /dev/null is everybody's */
		if (st.st_uid != u->uid && fchown(i, u->uid, st.st_gid) < 0)
			must(j, "stdio", -errno, "change the owner");
	}
}

/* ---- stages ---- */

static void set_oom_score_adj(const struct child_job *j)
{
	char text[16];

	if (j->process->oom_score_adj == 0)
		return;
	snprintf(text, sizeof(text), "%d", j->process->oom_score_adj);
	must(j, "oom_score_adj", write_at(AT_FDCWD, "/proc/self/oom_score_adj", text),
	     "oom_score_adj");
}

static void set_sysctls(const struct child_job *j)
{
	const Agent__CreateContainerRequest *c = j->container;
	struct err err = { 0 };

	for (size_t i = 0; i < c->n_sysctls; i++)
		must_err(j, "sysctl", sysctl_write(c->sysctls[i]->key, c->sysctls[i]->value, &err),
			 &err);
}

/* A new container: from the agent's mount namespace (a copy) into the image's root. */
static int enter_new(const struct child_job *j, struct tty *tty)
{
	const Agent__CreateContainerRequest *c = j->container;
	cleanup_free char *place = str_fmt("%s/rootfs", j->run_dir);
	struct err err = { 0 };

	if (unshare(CLONE_NEWCGROUP) < 0)
		must(j, "namespace", -errno, "cgroup namespace");
	if (!str_empty(c->hostname) && sethostname(c->hostname, strlen(c->hostname)) < 0)
		must(j, "namespace", -errno, "hostname");
	set_sysctls(j);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		must(j, "mount", -errno, "make mounts private");
	must(j, "mount", place ? mnt_attach_path(j->rootfs, place) : -ENOMEM, "root file system");
	must_err(j, "mount", mounts_set_up(j->rootfs, j->run_dir, c, tty, &err), &err);
	if (c->rootfs->readonly)
		must(j, "mount", mnt_attr(j->rootfs, MOUNT_ATTR_RDONLY, 0, false),
		     "read-only root file system");
	must_err(j, "mount", mounts_enter(j->rootfs, &err), &err);
	return j->rootfs;
}

/* A running container: all namespaces of its first process. Net is the pod's already. */
static int enter_running(const struct child_job *j, struct tty *tty)
{
	int own = j->nested ? CLONE_NEWUTS : CLONE_NEWCGROUP;
	struct err err = { 0 };
	int root;

	/* Both ways: a cgroup namespace has the cgroup as its root that it is made in. */
	if (setns(j->init_pidfd, CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
					 (j->nested ? CLONE_NEWCGROUP : 0)) < 0)
		must(j, "namespace", -errno, "join the container");
	if (unshare(own) < 0)
		must(j, "namespace", -errno, "mark the exec");
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		must(j, "namespace", -errno, "/");
	if (j->process->terminal)
		must_err(j, "terminal", tty_open(root, tty, &err), &err);
	return root;
}

static void set_stdio(const struct child_job *j, const struct tty *tty)
{
	const Agent__Process *p = j->process;
	struct report rep = { .kind = REPORT_TTY };

	if (!p->terminal) {
		set_std(j, j->std);
		return;
	}
	if (p->width || p->height) {
		struct winsize ws = { .ws_col = (unsigned short)p->width,
				      .ws_row = (unsigned short)p->height };

		if (ioctl(tty->master, TIOCSWINSZ, &ws) < 0)
			must(j, "terminal", -errno, "set the size");
	}
	set_std(j, (const int[3]){ tty->slave, tty->slave, tty->slave });
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		must(j, "terminal", -errno, "controlling terminal");
	must(j, "terminal", report_send(j->report, &rep, tty->master), "hand over");
}

/* Before the identity changes, as Docker does: a working directory that only root may enter is the
 * image's own choice. */
static void set_cwd(const struct child_job *j, int root)
{
	const char *cwd = str_empty(j->process->cwd) ? DEFAULT_CWD : j->process->cwd;
	char where[PATH_MAX];
	int fd = -1, r;

	r = j->init_pidfd < 0 ? path_make(root, cwd, PATH_DIR, &fd)
			      : path_open(root, cwd, O_PATH | O_DIRECTORY, &fd);
	if (r == 0 && fchdir(fd) < 0)
		r = -errno;
	must(j, "cwd", r, cwd);
	fd_close(&fd);
	/* The kernel's own answer, not libc's: outside of the root it says "(unreachable)". */
	if (syscall(SYS_getcwd, where, sizeof(where)) < 0)
		must(j, "cwd", -errno, cwd);
	if (where[0] != '/')
		must(j, "cwd", -EXDEV, cwd);
}

static void set_rlimits(const struct child_job *j)
{
	const Agent__Process *p = j->process;
	struct rlimit nofile;

	if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
		must(j, "rlimit", -errno, "RLIMIT_NOFILE");
	nofile.rlim_max = MIN_OF(nofile.rlim_max, NOFILE_HARD);
	nofile.rlim_cur = MIN_OF(nofile.rlim_max, NOFILE_SOFT);
	if (setrlimit(RLIMIT_NOFILE, &nofile) < 0)
		must(j, "rlimit", -errno, "RLIMIT_NOFILE");
	for (size_t i = 0; i < p->n_rlimits; i++) {
		struct rlimit lim = { p->rlimits[i]->soft, p->rlimits[i]->hard };
		int what = rlimit_of(p->rlimits[i]->type);

		if (what < 0 || setrlimit((__rlimit_resource_t)what, &lim) < 0)
			must(j, "rlimit", what < 0 ? -EINVAL : -errno, p->rlimits[i]->type);
	}
}

static const char *env_get(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; *env; env++)
		if (str_starts(*env, name) && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* The process's environment with PATH and HOME where they are missing. */
static char **make_env(const struct child_job *j, const struct user *u)
{
	const Agent__Process *p = j->process;
	char **env = calloc(p->n_env + 3, sizeof(*env)), *text;
	size_t n = p->n_env, size = 0;

	for (size_t i = 0; i < n; i++)
		size += p->env[i].len + 1;
	text = malloc(size + 1);
	if (!env || !text)
		must(j, "exec", -ENOMEM, "environment");
	for (size_t i = 0; i < n; i++) {
		env[i] = text;
		memcpy(text, p->env[i].data, p->env[i].len);
		text[p->env[i].len] = '\0';
		text += p->env[i].len + 1;
	}
	if (!env_get(env, "PATH"))
		env[n++] = (char *)DEFAULT_PATH;
	if (!env_get(env, "HOME")) {
		env[n] = str_fmt("HOME=%s", u->home);
		if (!env[n])
			must(j, "exec", -ENOMEM, "environment");
	}
	return env;
}

/* execve along PATH. A file that is there and cannot be run wins over "not found". */
static int exec_path(const char *name, char **argv, char **env)
{
	const char *path = env_get(env, "PATH");
	char full[PATH_MAX];
	int result = -ENOENT;

	if (strchr(name, '/')) {
		execve(name, argv, env);
		return -errno;
	}
	for (const char *p = path; p; p = strchr(p, ':')) {
		size_t n;

		p += *p == ':';
		n = strcspn(p, ":");
		/* An empty piece would be the working directory: not looked at. */
		if (n == 0 || (size_t)snprintf(full, sizeof(full), "%.*s/%s", (int)n, p, name) >=
				      sizeof(full))
			continue;
		execve(full, argv, env);
		if (errno == EACCES)
			result = -EACCES;
		else if (errno != ENOENT && errno != ENOTDIR)
			return -errno;
	}
	return result;
}

noreturn_fn static void exec_program(const struct child_job *j, const struct user *u)
{
	const Agent__Process *p = j->process;
	char **argv = calloc(p->n_args + 1, sizeof(*argv));
	char **env = make_env(j, u);
	char text[400];
	sigset_t none;
	int r;

	if (!argv)
		must(j, "exec", -ENOMEM, "arguments");
	memcpy(argv, p->args, p->n_args * sizeof(*argv));
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	r = exec_path(argv[0], argv, env);
	snprintf(text, sizeof(text), "\"%.300s\": %s", argv[0],
		 r == -ENOENT && !strchr(argv[0], '/') ? "executable file not found in $PATH"
						       : strerror(-r));
	child_fail(j, "exec", r, text);
}

/* All is made that the program needs. The agent sees to it that the limit of CPU time holds from
 * its first instruction on and not before, and that a terminal is in its hands. */
static void await_go(const struct child_job *j)
{
	const struct report rep = { .kind = REPORT_READY };

	must(j, "start", report_send(j->report, &rep, -1), "ready");
	must(j, "start", report_wait_go(j->report), "wait for the agent");
}

void child_run(const struct child_job *job)
{
	const Agent__Process *p = job->process;
	struct tty tty = { -1, -1 };
	struct err err = { 0 };
	const char *what = "";
	static struct user u; /* the list of groups is large */
	int root, r;

	/* Until exec the process has a copy of the agent's memory: the container's processes, which
	 * see it in their pid namespace, may not trace it or open what /proc shows of it. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (setsid() < 0)
		must(job, "session", -errno, "setsid");
	/* The session keyring would be the agent's, one for all containers of the pod. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		must(job, "keyring", -errno, "session keyring");
	set_oom_score_adj(job);
	enter_stage("mount");
	root = job->init_pidfd < 0 ? enter_new(job, &tty) : enter_running(job, &tty);
	enter_stage("stdio");
	set_stdio(job, &tty);
	enter_stage("user");
	must_err(job, "user", user_lookup(root, p->user, &u, &err), &err);
	enter_stage("cwd");
	set_cwd(job, root);
	enter_stage("capabilities");
	set_rlimits(job);
	own_std(job, &u);
	umask(p->user && p->user->umask ? p->user->umask : DEFAULT_UMASK);
	r = caps_become(&u, p->capabilities, &what);
	must(job, what, r, what);
	if (p->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		must(job, "capabilities", -errno, "no_new_privs");
	if (job->waits)
		await_go(job);
	enter_stage("exec");
	/* Only 0, 1 and 2 reach the program. */
	if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		must(job, "exec", -errno, "close_range");
	exec_program(job, &u);
}
