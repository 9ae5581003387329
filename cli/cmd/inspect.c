/* husk inspect: everything about an image or a container, with Docker's names for the keys. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cri.h"

/* ---- an image ---- */

/* A value of the configuration, or null. */
static json_t *part(const json_t *config, const char *key)
{
	json_t *v = json_object_get(config, key);

	return v ? json_incref(v) : json_null();
}

static json_t *image_json(const Husk__InspectImageResponse *m)
{
	const Husk__ImageSummary *s = m->summary;
	json_t *config = json_loads(m->config_json, 0, NULL);
	json_t *rootfs = json_object_get(config, "rootfs"), *j;
	char stored[40];

	j = json_pack(
		"{s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:{s:s, s:o}, s:o, "
		"s:{s:s, s:b, s:i, s:s, s:o}}",
		"Id", s->id, "RepoTags", json_strings(s->repo_tags, s->n_repo_tags), "RepoDigests",
		json_strings(s->repo_digests, s->n_repo_digests), "Created", s->created, "Stored",
		time_text(s->stored_at, stored), "Author", part(config, "author"), "Architecture",
		part(config, "architecture"), "Variant", part(config, "variant"), "Os",
		part(config, "os"), "Size", (json_int_t)s->size, "Config", part(config, "config"),
		"RootFS", "Type", "layers", "Layers", part(rootfs, "diff_ids"), "History",
		part(config, "history"), "Husk", "ChainId", m->chain_id, "Pinned", s->pinned,
		"Containers", (int)s->containers, "FsType", "ext4", "Disks",
		json_strings(m->layers, m->n_layers));
	json_decref(config);
	return j;
}

static int inspect_image(struct cli *c, const char *ref, json_t **ret, struct err *err)
{
	Husk__InspectImageRequest req = HUSK__INSPECT_IMAGE_REQUEST__INIT;
	Husk__InspectImageResponse *resp = NULL;
	int r;

	req.image = (char *)ref;
	r = husk_call(c, "InspectImage", &req, CALL_TIMEOUT_MS, &resp, err);
	if (r < 0)
		return r;
	*ret = resp->summary ? image_json(resp) : NULL;
	husk__inspect_image_response__free_unpacked(resp, NULL);
	return *ret ? 0 : err_set(err, -EBADMSG, "inspect %s: the answer cannot be read", ref);
}

/* ---- a container ---- */

static json_t *state_json(const Cri__ContainerStatus *s)
{
	char started[40], finished[40];
	bool running = s->state == CRI__CONTAINER_STATE__CONTAINER_RUNNING;

	return json_pack("{s:s, s:b, s:i, s:s, s:s, s:s, s:s}", "Status",
			 container_state_text(s->state), "Running", running, "ExitCode",
			 (int)s->exit_code, "Reason", s->reason, "Error", s->message, "StartedAt",
			 time_text(s->started_at, started), "FinishedAt",
			 time_text(s->finished_at, finished));
}

static json_t *labels_json(const Cri__ContainerStatus *s)
{
	json_t *j = json_object();

	for (size_t i = 0; j && i < s->n_labels; i++)
		(void)json_object_set_new(j, s->labels[i]->key, json_string(s->labels[i]->value));
	return j;
}

static json_t *annotations_json(const Cri__ContainerStatus *s)
{
	json_t *j = json_object();

	for (size_t i = 0; j && i < s->n_annotations; i++)
		(void)json_object_set_new(j, s->annotations[i]->key,
					  json_string(s->annotations[i]->value));
	return j;
}

/* The verbose part of the status: JSON of huskd. */
static json_t *info_json(const Cri__ContainerStatusResponse *m)
{
	for (size_t i = 0; i < m->n_info; i++)
		if (str_eq(m->info[i]->key, "info"))
			return json_loads(m->info[i]->value, 0, NULL);
	return NULL;
}

/* The same of the pod: what runs its VM, and its console. NULL when the pod is gone meanwhile. */
static json_t *pod_info_json(struct cli *c, char *pod_id)
{
	Cri__PodSandboxStatusRequest req = CRI__POD_SANDBOX_STATUS_REQUEST__INIT;
	Cri__PodSandboxStatusResponse *resp = NULL;
	json_t *j = NULL;

	req.pod_sandbox_id = pod_id;
	req.verbose = true;
	if (runtime_call(c, "PodSandboxStatus", &req, CALL_TIMEOUT_MS, &resp, NULL) < 0)
		return NULL;
	for (size_t i = 0; i < resp->n_info && !j; i++)
		if (str_eq(resp->info[i]->key, "info"))
			j = json_loads(resp->info[i]->value, 0, NULL);
	cri__pod_sandbox_status_response__free_unpacked(resp, NULL);
	return j;
}

static int inspect_container(struct cli *c, const char *ref, json_t **ret, struct err *err)
{
	Cri__ContainerStatusRequest req = CRI__CONTAINER_STATUS_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	Cri__ContainerStatusResponse *resp = NULL;
	const Cri__ContainerStatus *s;
	Cri__Container *ct;
	const char *name;
	char created[40];
	int r = find_container(c, ref, &list, &ct, err);

	if (r < 0)
		return r;
	req.container_id = ct->id;
	req.verbose = true;
	r = runtime_call(c, "ContainerStatus", &req, CALL_TIMEOUT_MS, &resp, err);
	if (r < 0)
		return r;
	s = resp->status;
	name = label_of(ct, LABEL_NAME);
	if (!name)
		name = ct->metadata ? ct->metadata->name : "";
	*ret = s ? json_pack(
			   "{s:s, s:s, s:s, s:o, s:s, s:s, s:{s:s, s:o, s:o}, s:{s:s, s:o*, s:o*}}",
			   "Id", s->id, "Name", name, "Created", time_text(s->created_at, created),
			   "State", state_json(s), "Image", s->image_id, "LogPath", s->log_path,
			   "Config", "Image", s->image ? s->image->image : "", "Labels",
			   labels_json(s), "Annotations", annotations_json(s), "Husk", "Pod",
			   ct->pod_sandbox_id, "Info", info_json(resp), "PodInfo",
			   pod_info_json(c, ct->pod_sandbox_id))
		 : NULL;
	cri__container_status_response__free_unpacked(resp, NULL);
	return *ret ? 0 : err_set(err, -EBADMSG, "inspect %s: the answer cannot be read", ref);
}

/* ---- the command ---- */

enum kind { ANY, IMAGE, CONTAINER };

static int inspect(struct cli *c, const char *ref, enum kind kind, json_t **ret, struct err *err)
{
	int r = kind == IMAGE ? -ENOENT : inspect_container(c, ref, ret, err);

	if (r != -ENOENT || kind == CONTAINER)
		return r;
	r = inspect_image(c, ref, ret, err);
	if (r == -ENOENT && kind == ANY)
		return err_set(err, r,
			       "there is no container and no image '%s'; 'husk ps -a' and 'husk "
			       "images' list them",
			       ref);
	return r;
}

static int inspect_run(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "type", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'J' }, /* it always is */
		{ 0 },
	};
	enum kind kind = ANY;
	int o, code = 0;
	json_t *all;

	while ((o = next_option(&cmd_inspect, argc, argv, ":", options)) != -1) {
		if (o == 'J')
			continue;
		if (o == 't' && str_eq(optarg, "image"))
			kind = IMAGE;
		else if (o == 't' && str_eq(optarg, "container"))
			kind = CONTAINER;
		else if (o == 't')
			return usage_error(&cmd_inspect, "--type %s: image or container expected",
					   optarg);
		else
			return EXIT_USAGE;
	}
	if (optind == argc)
		return usage_error(&cmd_inspect, "no image or container given");
	all = json_array();
	for (int i = optind; i < argc; i++) {
		struct err err = { 0 };
		json_t *j = NULL;

		if (inspect(c, argv[i], kind, &j, &err) < 0)
			code = fail(1, &err);
		else
			(void)json_array_append_new(all, j);
	}
	return print_json(all, true) ? 1 : code;
}

const struct command cmd_inspect = {
	.name = "inspect",
	.args = "[--type image|container] NAME...",
	.summary = "Show all that is known of images and containers, as JSON",
	.help = "  --type T   only look for images, or only for containers\n\n"
		"  Prints an array with one object a name. The keys have Docker's names; what "
		"only\n"
		"  Husk knows is under \"Husk\". A container is looked for first.\n",
	.run = inspect_run,
	.needs_server = true,
};
