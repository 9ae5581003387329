/* husk df, prune, images verify: what takes disk space, how to free it, whether it is intact. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cri.h"
#include "cli/progress.h"

/* ---- df ---- */

static const char *use_text(const char *kind)
{
	static const char *const names[][2] = {
		{ "images", "Images" },		{ "blobs", "Kept blobs" },
		{ "partial", "Partial pulls" }, { "metadata", "Metadata" },
		{ "containers", "Containers" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_eq(names[i][0], kind))
			return names[i][1];
	return kind;
}

static void use_row(struct table *t, const char *name, const Husk__DiskUse *u)
{
	char size[32], back[32];

	table_cell(t, name);
	table_cellf(t, "%llu", (unsigned long long)u->count);
	table_cellf(t, "%llu", (unsigned long long)u->active);
	table_cell(t, human_size(u->bytes, size));
	table_cell(t, human_size(u->reclaimable, back));
}

static int print_usage(const Husk__DiskUsageResponse *resp)
{
	Husk__DiskUse sum = HUSK__DISK_USE__INIT;
	char size[32], back[32];
	struct table t;

	table_init(&t, "KIND|>COUNT|>IN USE|>SIZE|>RECLAIMABLE");
	for (size_t i = 0; i < resp->n_uses; i++) {
		use_row(&t, use_text(resp->uses[i]->kind), resp->uses[i]);
		sum.bytes += resp->uses[i]->bytes;
		sum.reclaimable += resp->uses[i]->reclaimable;
	}
	table_cell(&t, "Total");
	table_cell(&t, "");
	table_cell(&t, "");
	table_cell(&t, human_size(sum.bytes, size));
	table_cell(&t, human_size(sum.reclaimable, back));
	return table_print(&t) ? 0 : 1;
}

static int print_usage_json(const Husk__DiskUsageResponse *resp)
{
	json_t *list = json_array();

	for (size_t i = 0; i < resp->n_uses; i++) {
		const Husk__DiskUse *u = resp->uses[i];

		(void)json_array_append_new(
			list,
			json_pack("{s:s, s:I, s:I, s:I, s:I}", "kind", u->kind, "count",
				  (json_int_t)u->count, "active", (json_int_t)u->active, "bytes",
				  (json_int_t)u->bytes, "reclaimable", (json_int_t)u->reclaimable));
	}
	return print_json(list, true);
}

static int disk_run_df(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	Husk__DiskUsageRequest req = HUSK__DISK_USAGE_REQUEST__INIT;
	Husk__DiskUsageResponse *resp = NULL;
	struct err err = { 0 };
	bool json = false;
	int o, code;

	while ((o = next_option(&cmd_df, argc, argv, ":", options)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		json = true;
	}
	if (optind < argc)
		return usage_error(&cmd_df, "unknown argument '%s'", argv[optind]);
	if (husk_call(c, "DiskUsage", &req, POD_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	code = json ? print_usage_json(resp) : print_usage(resp);
	husk__disk_usage_response__free_unpacked(resp, NULL);
	return code;
}

const struct command cmd_df = {
	.name = "df",
	.args = "[--json]",
	.summary = "Show the disk space that images and containers take",
	.help = "  --json   an array of objects, bytes as numbers\n\n"
		"  Layers that images share are counted once. Reclaimable of images and blobs is "
		"what\n"
		"  'husk prune -a --blobs' gives back.\n",
	.run = disk_run_df,
	.needs_server = true,
};

/* ---- prune ---- */

struct prune {
	bool all, blobs, containers, force, dry_run, json;
};

/* Containers that `husk run` made and that have ended, with their pods. */
static int prune_containers(struct cli *c, const struct prune *p, json_t *gone, struct err *err)
{
	Cri__ListContainersRequest req = CRI__LIST_CONTAINERS_REQUEST__INIT;
	cleanup_containers Cri__ListContainersResponse *list = NULL;
	int r = runtime_call(c, "ListContainers", &req, CALL_TIMEOUT_MS, &list, err);

	for (size_t i = 0; r == 0 && i < list->n_containers; i++) {
		Cri__Container *ct = list->containers[i];

		if (!label_of(ct, LABEL_RUN) || ct->state != CRI__CONTAINER_STATE__CONTAINER_EXITED)
			continue;
		if (!p->dry_run)
			r = remove_run(c, ct, err);
		if (r == 0)
			(void)json_array_append_new(gone, json_string(label_of(ct, LABEL_NAME)));
	}
	return r;
}

static void prune_question(const struct prune *p, char *buf, size_t n)
{
	(void)snprintf(buf, n, "This removes %s%s%s. Continue?",
		       p->containers ? "the containers of 'husk run' that have ended, " : "",
		       p->all ? "all images that no container uses" : "images without a name",
		       p->blobs ? ", and the compressed layers that were kept for push and save"
				: "");
}

static int print_pruned(const struct prune *p, const Husk__PruneResponse *resp, json_t *cts)
{
	const char *verb = p->dry_run ? "Would remove" : "Removed";
	const char *name;
	char size[32];
	size_t i;
	json_t *j;

	if (p->json)
		return print_json(json_pack("{s:O, s:o, s:I, s:I, s:b}", "containers", cts,
					    "images", json_strings(resp->images, resp->n_images),
					    "blobs", (json_int_t)resp->blobs, "bytes",
					    (json_int_t)resp->bytes, "dry_run", p->dry_run),
				  true);
	json_array_foreach (cts, i, j) {
		name = json_string_value(j);
		printf("%s container %s\n", verb, name ? name : "?");
	}
	for (i = 0; i < resp->n_images; i++)
		printf("%s image %s\n", verb, resp->images[i]);
	if (resp->blobs)
		printf("%s %llu blobs\n", verb, (unsigned long long)resp->blobs);
	printf("%s: %s\n", p->dry_run ? "Reclaimable" : "Reclaimed", human_size(resp->bytes, size));
	return 0;
}

static int prune_all(struct cli *c, const struct prune *p)
{
	Husk__PruneRequest req = HUSK__PRUNE_REQUEST__INIT;
	Husk__PruneResponse *resp = NULL;
	struct err err = { 0 };
	json_t *cts = json_array();
	int code;

	req.images = true;
	req.all_images = p->all;
	req.blobs = p->blobs;
	req.dry_run = p->dry_run;
	if ((p->containers && prune_containers(c, p, cts, &err) < 0) ||
	    husk_call(c, "Prune", &req, POD_TIMEOUT_MS, &resp, &err) < 0) {
		json_decref(cts);
		return fail(1, &err);
	}
	code = print_pruned(p, resp, cts);
	husk__prune_response__free_unpacked(resp, NULL);
	json_decref(cts);
	return code;
}

static int disk_run_prune(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, 'a' },
		{ "blobs", no_argument, NULL, 'b' },
		{ "containers", no_argument, NULL, 'c' },
		{ "force", no_argument, NULL, 'f' },
		{ "dry-run", no_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	struct prune p = { 0 };
	char question[300];
	int o;

	while ((o = next_option(&cmd_prune, argc, argv, ":afn", options)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		p.all |= o == 'a';
		p.blobs |= o == 'b';
		p.containers |= o == 'c';
		p.force |= o == 'f';
		p.dry_run |= o == 'n';
		p.json |= o == 'J';
	}
	if (optind < argc)
		return usage_error(&cmd_prune, "unknown argument '%s'", argv[optind]);
	if (!p.force && !p.dry_run) {
		if (!can_ask())
			return usage_error(&cmd_prune,
					   "no terminal to ask on: use -f, or "
					   "--dry-run to see what would go");
		prune_question(&p, question, sizeof(question));
		if (!ask_yes(question))
			return 1;
	}
	return prune_all(c, &p);
}

const struct command cmd_prune = {
	.name = "prune",
	.args = "[-a] [--blobs] [--containers] [-f | -n] [--json]",
	.summary = "Remove unused images, and more when asked to",
	.help = "  -a, --all       all images that no container uses, not just those without a "
		"name\n"
		"  --blobs         also the compressed layers that are kept after they were "
		"unpacked:\n"
		"                  such an image runs, but cannot be pushed or saved\n"
		"  --containers    first, containers of 'husk run' that have ended\n"
		"  -f, --force     do not ask\n"
		"  -n, --dry-run   only tell what would go\n"
		"  --json          an object\n\n"
		"  Pinned images stay.\n",
	.run = disk_run_prune,
	.needs_server = true,
};

/* ---- images verify ---- */

struct verify {
	struct cli *c;
	bool json;
	uint64_t done, total, problems;
	struct progress progress;
};

/* Names of the images with these ids, as far as they have some. */
static void print_names(struct cli *c, char *const *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		Husk__ListImagesRequest req = HUSK__LIST_IMAGES_REQUEST__INIT;
		Husk__ListImagesResponse *resp = NULL;
		const char *name = ids[i];

		req.image = ids[i];
		if (husk_call(c, "ListImages", &req, CALL_TIMEOUT_MS, &resp, NULL) == 0 &&
		    resp->n_images && resp->images[0]->n_repo_tags)
			name = resp->images[0]->repo_tags[0];
		printf("  needed by %s\n", familiar_name(name));
		if (resp)
			husk__list_images_response__free_unpacked(resp, NULL);
	}
}

static int disk_on_verified(const ProtobufCMessage *m, void *arg)
{
	const Husk__VerifyProgress *msg = (const void *)m;
	struct verify *v = arg;

	v->done = msg->done;
	v->total = msg->total;
	v->problems += *msg->problem != '\0';
	if (v->json)
		return *msg->problem
			       ? -print_json(json_pack("{s:s, s:s, s:s, s:o}", "event", "problem",
						       "object", msg->object, "problem",
						       msg->problem, "images",
						       json_strings(msg->images, msg->n_images)),
					     false)
			       : 0;
	progress_line(&v->progress, "verifying %llu of %llu", (unsigned long long)msg->done,
		      (unsigned long long)msg->total);
	if (*msg->problem) {
		progress_clear(&v->progress);
		printf("%s: %s\n", msg->object, msg->problem);
		print_names(v->c, msg->images, msg->n_images);
	}
	return 0;
}

static int disk_run_verify(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	Husk__VerifyImagesRequest req = HUSK__VERIFY_IMAGES_REQUEST__INIT;
	struct verify v = { .c = c };
	struct err err = { 0 };
	int o, code = 0;

	optind = 0;
	while ((o = next_option(&cmd_verify, argc, argv, ":h", options)) != -1) {
		if (o == 'h') {
			print_help(&cmd_verify);
			return 0;
		}
		if (o != 'J')
			return EXIT_USAGE;
		v.json = true;
	}
	req.images = argv + optind;
	req.n_images = (size_t)(argc - optind);
	progress_init(&v.progress, v.json ? PROGRESS_NONE : PROGRESS_PEOPLE);
	if (rpc_stream(c->rpc, &husk__husk__descriptor, "VerifyImages", &req.base, disk_on_verified,
		       &v, &err) < 0) {
		progress_clear(&v.progress);
		return fail(1, &err);
	}
	progress_clear(&v.progress);
	if (v.json)
		code = print_json(json_pack("{s:s, s:I, s:I}", "event", "done", "objects",
					    (json_int_t)v.total, "problems",
					    (json_int_t)v.problems),
				  false);
	else if (v.problems)
		printf("%llu of %llu layers and blobs are damaged; 'husk pull' of the images named "
		       "above makes them anew\n",
		       (unsigned long long)v.problems, (unsigned long long)v.total);
	else
		printf("All is well: %llu layers and blobs\n", (unsigned long long)v.total);
	return v.problems ? 1 : code;
}

const struct command cmd_verify = {
	.name = "images verify",
	.args = "[--json] [IMAGE...]",
	.summary = "Read all layers and blobs again and tell what is damaged",
	.help = "  --json   a line for each problem and one for the end\n\n"
		"  Without IMAGE, everything. What is damaged is fetched again by the next pull "
		"of\n"
		"  its image. Exit code 1 when something is.\n",
	.run = disk_run_verify,
	.needs_server = true,
};
