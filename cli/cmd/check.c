/* husk check, version: what works on this host and why not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"
#include "cli/cli.h"

#define PROBE_OUTPUT_MAX (64 * KIB)
#define PROBE_FIELD_MAX 400
#define CONTROLLERS_MAX 4096

enum verdict { OK, NOTE, BAD };

struct check {
	unsigned bad;
};

static void say(struct check *k, enum verdict v, const char *what, const char *text)
{
	static const char *const marks[] = { "ok  ", "note", "FAIL" };

	printf("%s  %-16s %s\n", marks[v], what, text);
	if (v == BAD)
		k->bad++;
}

/* Runs a program of ours to its end; its standard output. */
static int capture(const char *path, char *const *argv, char **ret, struct err *err)
{
	struct spawn s = spawn_of(path, argv, OOM_SCORE_KEEP);
	cleanup_fd int rd = -1, wr = -1, pidfd = -1;
	int p[2], r, status;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	rd = p[0];
	wr = p[1];
	s.fds[1] = wr;
	s.fds[2] = STDERR_FILENO;
	s.n_fds = 3;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return r;
	fd_close(&wr);
	r = read_fd(rd, PROBE_OUTPUT_MAX, ret, NULL);
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		r = r < 0 ? r : -EIO;
	return r < 0 ? err_errno(err, r, "%s", path) : 0;
}

/* What `program --probe` tells of this host; the caller drops *ret. NULL: it printed no JSON. */
static int ask(const char *program, json_t **ret, struct err *err)
{
	cleanup_free char *path = NULL, *text = NULL;
	char *argv[] = { (char *)program, (char *)"--probe", NULL };
	int r = program_path(NULL, program, &path, err);

	if (r == 0)
		r = capture(path, argv, &text, err);
	*ret = r == 0 ? json_loads(text, 0, NULL) : NULL;
	return r;
}

/* husk-vmm --probe: {"kvm": {"usable": BOOL, "reason": TEXT, "fix": TEXT}, "qemu": {...}, "auto":
 * NAME} */
static bool say_backend(struct check *k, const json_t *probe, const char *name)
{
	char text[PROBE_FIELD_MAX];
	const char *reason = "", *fix = "";
	int usable = 0;

	if (json_unpack((json_t *)probe, "{s:{s:b,s:s,s:s}}", name, "usable", &usable, "reason",
			&reason, "fix", &fix) < 0)
		return false;
	(void)snprintf(text, sizeof(text), "%s%s%s", reason, usable || !*fix ? "" : "; ",
		       usable ? "" : fix);
	say(k, usable ? OK : NOTE, name, text);
	return usable;
}

/* How many of them work; -EPROTO when the answer could not be read, which has been said then. */
static int say_backends(struct check *k, json_t *probe)
{
	const char *chosen = NULL;
	int n = 0;

	if (!probe) {
		say(k, BAD, "husk-vmm", "its probe printed no JSON");
		return -EPROTO;
	}
	n += say_backend(k, probe, "kvm");
	n += say_backend(k, probe, "qemu");
	if (n > 0 && json_unpack(probe, "{s:s}", "auto", &chosen) == 0)
		say(k, str_eq(chosen, "kvm") ? OK : NOTE, "backend auto",
		    str_eq(chosen, "kvm") ? chosen
					  : "qemu: without KVM pods are slow, and QEMU's emulation "
					    "is no border against a hostile guest; 'backend: kvm' "
					    "refuses it");
	return n;
}

static void check_backends(struct check *k)
{
	struct err err = { 0 };
	json_t *probe;

	if (ask("husk-vmm", &probe, &err) < 0)
		say(k, BAD, "husk-vmm", err_text(&err));
	else if (say_backends(k, probe) == 0)
		say(k, BAD, "backends", "no backend works: enable KVM, or install qemu-system-x86");
	json_decref(probe);
}

/* v2 has one tree for all controllers; not every kernel has this one, or has it switched on. */
static bool controls_memory(const char *v2)
{
	cleanup_free char *path = str_fmt("%s/cgroup.controllers", v2);
	cleanup_free char *text = NULL;
	char *word, *save = NULL;

	if (!path || read_file(path, CONTROLLERS_MAX, &text, NULL, NULL) < 0)
		return false;
	for (word = strtok_r(text, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
		if (str_eq(word, "memory"))
			return true;
	return false;
}

/* Whether the memory of a pod on the host is bounded by more than its VM's size (shim/cgroup.h). */
static void check_cgroups(struct check *k)
{
	static const struct {
		const char *path, *text;
		long magic;
	} kinds[] = {
		{ "/sys/fs/cgroup", "v2: each pod is in one, with a memory limit",
		  CGROUP2_SUPER_MAGIC },
		{ "/sys/fs/cgroup/memory", "v1: each pod is in one, with a memory limit",
		  CGROUP_SUPER_MAGIC },
	};
	struct statfs s;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (statfs(kinds[i].path, &s) < 0 || s.f_type != kinds[i].magic)
			continue;
		if (geteuid() != 0)
			say(k, NOTE, "cgroups", "only root can see whether pods may have some");
		else if (kinds[i].magic == CGROUP2_SUPER_MAGIC && !controls_memory(kinds[i].path))
			say(k, NOTE, "cgroups",
			    "v2 without the memory controller: each pod is in one, without a "
			    "limit");
		else if (access(kinds[i].path, W_OK) == 0)
			say(k, OK, "cgroups", kinds[i].text);
		else
			say(k, NOTE, "cgroups", "read-only: pods run in no cgroup of their own");
		return;
	}
	say(k, NOTE, "cgroups",
	    "none with a memory controller: pods run in no cgroup of their own");
}

static void check_file(struct check *k, const char *what, const char *rel, const char *hint)
{
	cleanup_free char *path = NULL;
	char text[PROBE_FIELD_MAX];
	struct err err = { 0 };

	if (program_path(NULL, rel, &path, &err) < 0) {
		say(k, BAD, what, err_text(&err));
		return;
	}
	if (access(path, R_OK) == 0) {
		say(k, OK, what, path);
		return;
	}
	(void)snprintf(text, sizeof(text), "%s: %s; %s", path, strerror(errno), hint);
	say(k, BAD, what, text);
}

/* What keeps the process that downloads away from the host's files. Without it the other walls are
 * left (SECURITY.md). */
static void check_confinement(struct check *k)
{
	struct err err = { 0 };
	json_t *probe;
	char line[PROBE_FIELD_MAX];
	int abi = 0;

	if (ask("husk-image-worker", &probe, &err) < 0)
		return; /* the check of the file says it */
	if (!probe || json_unpack(probe, "{s:i}", "landlock", &abi) < 0) {
		say(k, BAD, "confinement", "husk-image-worker --probe printed no JSON");
	} else if (abi) {
		(void)snprintf(line, sizeof(line), "Landlock, version %d", abi);
		say(k, OK, "confinement", line);
	} else {
		say(k, NOTE, "confinement",
		    "the kernel has no Landlock: the process that downloads images is confined by "
		    "its user and by system call filters alone; add landlock to lsm= of the "
		    "kernel's command line");
	}
	json_decref(probe);
}

static void check_host(struct check *k)
{
	char text[PROBE_FIELD_MAX];
	struct utsname u;

	if (uname(&u) == 0) {
		(void)snprintf(text, sizeof(text), "%s %s %s", u.sysname, u.release, u.machine);
		say(k, OK, "host kernel", text);
	}
	if (geteuid() != 0)
		say(k, NOTE, "user", "not root: huskd needs root");
}

static void say_conditions(struct check *k, const Cri__RuntimeStatus *st)
{
	char text[PROBE_FIELD_MAX];

	for (size_t i = 0; i < st->n_conditions; i++) {
		const Cri__RuntimeCondition *c = st->conditions[i];

		if (!c->status)
			(void)snprintf(text, sizeof(text), "no: %s - %s", c->reason, c->message);
		else if (str_empty(c->message))
			(void)snprintf(text, sizeof(text), "yes");
		else
			(void)snprintf(text, sizeof(text), "yes, but %s", c->message);
		say(k, c->status && str_empty(c->message) ? OK : NOTE, c->type, text);
	}
}

static void check_server(struct check *k, struct cli *c)
{
	Cri__VersionRequest vreq = CRI__VERSION_REQUEST__INIT;
	Cri__StatusRequest sreq = CRI__STATUS_REQUEST__INIT;
	Cri__VersionResponse *v;
	Cri__StatusResponse *s;
	char text[PROBE_FIELD_MAX];
	struct err err = { 0 };

	if (rpc_open(c->endpoint, &c->rpc, &err) < 0 ||
	    runtime_call(c, "Version", &vreq, 3000, &v, &err) < 0) {
		say(k, BAD, "huskd", err_text(&err));
		return;
	}
	(void)snprintf(text, sizeof(text), "%s %s at %s", v->runtime_name, v->runtime_version,
		       c->endpoint);
	say(k, OK, "huskd", text);
	cri__version_response__free_unpacked(v, NULL);
	if (runtime_call(c, "Status", &sreq, 3000, &s, &err) < 0) {
		say(k, BAD, "status", err_text(&err));
		return;
	}
	if (s->status)
		say_conditions(k, s->status);
	cri__status_response__free_unpacked(s, NULL);
}

static int check_run(struct cli *c, int argc, char **argv)
{
	struct check k = { 0 };

	if (no_arguments(&cmd_check, argc, argv))
		return EXIT_USAGE;
	check_host(&k);
	check_backends(&k);
	check_file(&k, "guest kernel", "../share/husk/vmlinux", "build it with 'make kernel'");
	check_file(&k, "initramfs", "../share/husk/initramfs.cpio", "build it with 'make'");
	check_file(&k, "shim", "containerd-shim-husk-v2", "build it with 'make'");
	check_file(&k, "image worker", "husk-image-worker", "build it with 'make'");
	check_confinement(&k);
	check_cgroups(&k);
	check_server(&k, c);
	return k.bad ? 1 : 0;
}

const struct command cmd_check = {
	.name = "check",
	.args = "",
	.summary = "Tell what works on this host, and why not",
	.help = "  Exit code 0: pods can run. Lines that begin with 'note' tell of something "
		"slower\n"
		"  or missing that Husk does without.\n",
	.run = check_run,
};

static int check_run_version(struct cli *c, int argc, char **argv)
{
	Cri__VersionRequest req = CRI__VERSION_REQUEST__INIT;
	Cri__VersionResponse *v;
	struct err err = { 0 };

	if (no_arguments(&cmd_version, argc, argv))
		return EXIT_USAGE;
	printf("husk   %s\n", HUSK_VERSION);
	if (rpc_open(c->endpoint, &c->rpc, &err) < 0 ||
	    runtime_call(c, "Version", &req, 3000, &v, &err) < 0)
		return fail(1, &err);
	printf("%-6s %s (CRI %s)\n", "huskd", v->runtime_version, v->runtime_api_version);
	cri__version_response__free_unpacked(v, NULL);
	return 0;
}

const struct command cmd_version = {
	.name = "version",
	.args = "",
	.summary = "Show the versions of husk and huskd",
	.help = "",
	.run = check_run_version,
};
