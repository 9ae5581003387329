#include "shim/oci/oci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "shim/oci/json.h"

static int oci_top_process(struct oci *o, const char *path, json_t *v)
{
	return oci_process(o, path, v, &o->spec->req->process);
}

static int oci_top_root_readonly(struct oci *o, const char *path, json_t *v)
{
	return oci_bool(o, path, v, &o->spec->rootfs_readonly);
}

static const struct oci_field root_fields[] = {
	{ "path", OCI_SKIP, NULL }, /* a mount point on the host; the root comes as disks */
	{ "readonly", OCI_TAKE, oci_top_root_readonly },
};

static int oci_top_root(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, root_fields);
}

static int oci_top_hostname(struct oci *o, const char *path, json_t *v)
{
	char *s;
	int r = oci_string(o, path, v, &s);

	if (r == 0 && strlen(s) > 64)
		return oci_bad(o, path, "is longer than 64 characters");
	if (r == 0) {
		o->spec->req->hostname = s;
		o->spec->hostname = s;
	}
	return r;
}

static int oci_top_annotations(struct oci *o, const char *path, json_t *v)
{
	json_t *type = json_object_get(v, "io.kubernetes.cri.container-type");
	json_t *sandbox = json_object_get(v, "io.kubernetes.cri.sandbox-id");
	int r = 0;

	if (!json_is_object(v))
		return oci_bad(o, path, "is not an object");
	if (type)
		r = oci_string(o, path, type, (char **)&o->spec->container_type);
	if (r == 0 && sandbox)
		r = oci_string(o, path, sandbox, (char **)&o->spec->sandbox_id);
	return r;
}

static const struct oci_field top_fields[] = {
	{ "ociVersion", OCI_SKIP, NULL }, /* fields are checked one by one */
	{ "process", OCI_TAKE, oci_top_process },
	{ "root", OCI_TAKE, oci_top_root },
	{ "hostname", OCI_TAKE, oci_top_hostname },
	{ "domainname", OCI_REFUSE, NULL },
	{ "mounts", OCI_TAKE, oci_mounts },
	{ "hooks", OCI_REFUSE, NULL },
	{ "annotations", OCI_TAKE, oci_top_annotations },
	{ "linux", OCI_TAKE, oci_linux },
	{ "solaris", OCI_REFUSE, NULL },
	{ "windows", OCI_REFUSE, NULL },
	{ "vm", OCI_REFUSE, NULL },
	{ "zos", OCI_REFUSE, NULL },
	{ "freebsd", OCI_REFUSE, NULL },
};

static json_t *load_json(const char *json, size_t n, struct err *err)
{
	json_error_t je;
	json_t *v;

	if (n > OCI_JSON_MAX) {
		(void)err_set(err, -EFBIG, "config.json is larger than %zu MiB",
			      OCI_JSON_MAX / MIB);
		return NULL;
	}
	v = json_loadb(json, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &je);
	if (!v)
		(void)err_set(err, -EINVAL, "config.json, line %d: %s", je.line, je.text);
	return v;
}

int oci_parse(struct pb_arena *a, const char *json, size_t n, struct oci_spec *ret, struct err *err)
{
	struct oci_spec spec = { .hostname = "", .container_type = "", .sandbox_id = "" };
	struct oci o = { .a = a, .err = err, .spec = &spec };
	json_t *v = load_json(json, n, err);
	int r;

	if (!v)
		return n > OCI_JSON_MAX ? -EFBIG : -EINVAL;
	spec.req = oci_alloc(&o, sizeof(*spec.req));
	if (spec.req) {
		agent__create_container_request__init(spec.req);
		r = oci_fields(&o, "", v, top_fields);
	} else {
		r = oci_oom(&o);
	}
	json_decref(v);
	if (r < 0)
		return r;
	if (!spec.req->process)
		return oci_bad(&o, "process", "is missing");
	*ret = spec;
	return 0;
}

int oci_load(struct pb_arena *a, const char *path, struct oci_spec *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t n;
	int r = read_file(path, OCI_JSON_MAX, &text, &n, err);

	return r < 0 ? r : oci_parse(a, text, n, ret, err);
}

int oci_parse_process(struct pb_arena *a, const char *json, size_t n, Agent__Process **ret,
		      struct err *err)
{
	struct oci o = { .a = a, .err = err };
	json_t *v = load_json(json, n, err);
	int r;

	if (!v)
		return n > OCI_JSON_MAX ? -EFBIG : -EINVAL;
	r = oci_process(&o, "", v, ret);
	json_decref(v);
	return r;
}

static void copy_annotation(json_t *annotations, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(annotations, key));

	(void)snprintf(out, size, "%s", s ? s : "");
}

int oci_group_of(const char *bundle, struct oci_group *ret, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/config.json", bundle);
	cleanup_free char *text = NULL;
	json_t *v, *annotations;
	size_t n;
	int r;

	if (!path)
		return err_nomem(err);
	*ret = (struct oci_group){ 0 };
	r = read_file(path, OCI_JSON_MAX, &text, &n, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	v = load_json(text, n, err);
	if (!v)
		return -EINVAL;
	annotations = json_object_get(v, "annotations");
	copy_annotation(annotations, "io.containerd.runc.v2.group", ret->group, sizeof(ret->group));
	copy_annotation(annotations, "io.kubernetes.cri.sandbox-id", ret->sandbox_id,
			sizeof(ret->sandbox_id));
	json_decref(v);
	return 0;
}
