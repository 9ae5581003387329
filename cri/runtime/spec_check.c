#include "cri/runtime/spec_check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/limits.h"
#include "base/util.h"

#define MODE(x) CRI__NAMESPACE_MODE__##x

static int check_name(const char *what, const char *s, bool required, struct err *err)
{
	if (required && str_empty(s))
		return err_set(err, -EINVAL, "%s is missing", what);
	if (s && strlen(s) > SPEC_NAME_MAX)
		return err_set(err, -EINVAL, "%s is longer than %d bytes", what, SPEC_NAME_MAX);
	return 0;
}

static int check_userns(const Cri__UserNamespace *u, struct err *err)
{
	if (!u)
		return 0;
	switch ((int)u->mode) {
	case MODE(NODE):
		if (u->n_uids || u->n_gids)
			return err_set(err, -EINVAL,
				       "userns_options: mode NODE must not have mappings");
		return 0;
	case MODE(POD):
		return err_set(err, -ENOSYS,
			       "user namespaces are not implemented yet (the pod's virtual machine "
			       "separates its users from the host's); use mode NODE");
	default:
		return err_set(err, -EINVAL, "userns_options: mode must be POD or NODE");
	}
}

/* A pod lives in a kernel of its own: nothing of the host can be shared with it. */
static int check_namespaces(const Cri__NamespaceOption *o, bool container, struct err *err)
{
	const char *what = NULL;

	if (!o)
		return 0;
	if (o->network == MODE(NODE))
		what = "the host's network";
	else if (o->pid == MODE(NODE))
		what = "the host's processes (pid mode NODE)";
	else if (o->ipc == MODE(NODE))
		what = "the host's IPC (ipc mode NODE)";
	if (what)
		return err_set(
			err, -EBUSY,
			"%s cannot be seen from a pod in a virtual machine; run this pod with "
			"another runtime handler",
			what);
	if (o->network != MODE(POD))
		return err_set(err, -EINVAL, "network namespace mode must be POD or NODE");
	if (o->ipc != MODE(POD))
		return err_set(err, -EINVAL, "ipc namespace mode must be POD or NODE");
	if (o->pid == MODE(TARGET))
		return container ? err_set(err, -ENOSYS,
					   "pid namespace mode TARGET is not implemented yet")
				 : err_set(err, -EINVAL,
					   "pid namespace mode TARGET is for containers only");
	if (o->pid != MODE(POD) && o->pid != MODE(CONTAINER))
		return err_set(err, -EINVAL, "unknown pid namespace mode %d", (int)o->pid);
	return check_userns(o->userns_options, err);
}

static int check_selinux(const Cri__SELinuxOption *s, struct err *err)
{
	if (s && (*s->user || *s->role || *s->type || *s->level))
		return err_set(err, -ENOSYS, "the guest kernel has no SELinux");
	return 0;
}

/* `old` is the deprecated string, used when the message is absent. */
static int check_seccomp(const Cri__SecurityProfile *p, const char *old, struct err *err)
{
	bool unconfined = p ? p->profile_type == CRI__SECURITY_PROFILE__PROFILE_TYPE__Unconfined
			    : str_empty(old) || str_eq(old, "unconfined");

	if (unconfined)
		return 0;
	return err_set(err, -ENOSYS,
		       "seccomp profiles are not implemented yet; use profile type Unconfined");
}

/* The default profile of an AppArmor host protects that host's kernel: here it is another kernel.
 */
static int check_apparmor(const Cri__SecurityProfile *p, const char *old, struct err *err)
{
	const char *name = NULL;

	if (p && p->profile_type == CRI__SECURITY_PROFILE__PROFILE_TYPE__Localhost)
		name = p->localhost_ref;
	else if (!p && !str_empty(old) && !str_eq(old, "unconfined") &&
		 !str_eq(old, "runtime/default"))
		name = old;
	if (name)
		return err_set(err, -EBUSY,
			       "AppArmor profile \"%s\": the guest kernel has no AppArmor", name);
	return 0;
}

static int check_sandbox_security(const Cri__LinuxSandboxSecurityContext *sc, struct err *err)
{
	int r;

	if (!sc)
		return 0;
	r = check_namespaces(sc->namespace_options, false, err);
	if (r == 0)
		r = check_selinux(sc->selinux_options, err);
	if (r == 0)
		r = check_apparmor(sc->apparmor, NULL, err);
	/* seccomp, user and groups of a sandbox are for a pause process: Husk has none. */
	if (r == 0 && sc->run_as_group && !sc->run_as_user)
		r = err_set(err, -EINVAL, "run_as_group without run_as_user");
	return r;
}

static int check_log_directory(const char *dir, struct err *err)
{
	if (!str_empty(dir) && dir[0] != '/')
		return err_set(err, -EINVAL, "log_directory is not absolute: %s", dir);
	return 0;
}

int spec_check_pod(const Cri__PodSandboxConfig *c, struct err *err)
{
	const Cri__PodSandboxMetadata *m;
	int r;

	if (!c)
		return err_set(err, -EINVAL, "config is missing");
	m = c->metadata;
	if (!m)
		return err_set(err, -EINVAL, "config.metadata is missing");
	r = check_name("metadata.name", m->name, true, err);
	if (r == 0)
		r = check_name("metadata.namespace", m->namespace_, false, err);
	if (r == 0)
		r = check_name("metadata.uid", m->uid, false, err);
	if (r == 0 && strlen(c->hostname) > 64)
		r = err_set(err, -EINVAL, "hostname is longer than 64 bytes");
	if (r == 0)
		r = check_log_directory(c->log_directory, err);
	if (r == 0 && c->linux)
		r = check_sandbox_security(c->linux->security_context, err);
	return r;
}

static bool pod_privileged(const Cri__PodSandboxConfig *pod)
{
	return pod->linux && pod->linux->security_context &&
	       pod->linux->security_context->privileged;
}

static int check_container_security(const struct spec_input *in,
				    const Cri__LinuxContainerSecurityContext *sc, struct err *err)
{
	int r = check_namespaces(sc->namespace_options, true, err);

	if (r == 0)
		r = check_selinux(sc->selinux_options, err);
	if (r < 0)
		return r;
	if (sc->privileged && !pod_privileged(in->pod))
		return err_set(err, -EINVAL,
			       "a privileged container needs a privileged pod sandbox");
	if (!sc->privileged) {
		r = check_seccomp(sc->seccomp, sc->seccomp_profile_path, err);
		if (r == 0)
			r = check_apparmor(sc->apparmor, sc->apparmor_profile, err);
		if (r < 0)
			return r;
	}
	if (sc->supplemental_groups_policy != CRI__SUPPLEMENTAL_GROUPS_POLICY__Merge &&
	    sc->supplemental_groups_policy != CRI__SUPPLEMENTAL_GROUPS_POLICY__Strict)
		return err_set(err, -EINVAL, "supplemental_groups_policy %d is not known",
			       (int)sc->supplemental_groups_policy);
	if (sc->n_supplemental_groups > PROCESS_GROUPS_MAX)
		return err_set(err, -EINVAL, "more than %u supplemental groups",
			       PROCESS_GROUPS_MAX);
	if (sc->n_masked_paths > CONTAINER_PATHS_MAX || sc->n_readonly_paths > CONTAINER_PATHS_MAX)
		return err_set(err, -EINVAL, "more than %u masked or read-only paths",
			       CONTAINER_PATHS_MAX);
	return 0;
}

int spec_check_container(const struct spec_input *in, struct err *err)
{
	const Cri__ContainerConfig *c = in->container;
	cleanup_free char *log = NULL;
	int r = check_name("metadata.name", c->metadata->name, true, err);

	if (r < 0)
		return r;
	if (c->n_mounts)
		return err_set(err, -ENOSYS,
			       "mounts are not implemented yet (%s); the container's own disk is "
			       "writable",
			       c->mounts[0]->container_path);
	if (c->n_devices)
		return err_set(err, -ENOSYS, "devices are not implemented yet (%s)",
			       c->devices[0]->container_path);
	if (c->n_cdi_devices)
		return err_set(err, -ENOSYS, "CDI devices are not implemented yet (%s)",
			       c->cdi_devices[0]->name);
	if (c->linux && c->linux->security_context) {
		r = check_container_security(in, c->linux->security_context, err);
		if (r < 0)
			return r;
	}
	return spec_check_log_path(in->pod, c, &log, err);
}

/* "..", at the start, in the middle or at the end. */
static bool climbs(const char *path)
{
	for (const char *p = path; p; p = strchr(p, '/')) {
		while (*p == '/')
			p++;
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
			return true;
	}
	return false;
}

int spec_check_log_path(const Cri__PodSandboxConfig *pod, const Cri__ContainerConfig *container,
			char **ret, struct err *err)
{
	int r;
	char *path;

	*ret = NULL;
	if (str_empty(pod->log_directory) || str_empty(container->log_path))
		return 0;
	r = check_log_directory(pod->log_directory, err);
	if (r < 0)
		return r;
	if (climbs(container->log_path))
		return err_set(err, -EINVAL, "log_path leaves the log directory: %s",
			       container->log_path);
	path = str_fmt("%s/%s", pod->log_directory, container->log_path);
	if (!path)
		return err_nomem(err);
	if (strlen(path) >= 4096) {
		free(path);
		return err_set(err, -EINVAL, "the log path is longer than 4095 bytes");
	}
	*ret = path;
	return 0;
}
