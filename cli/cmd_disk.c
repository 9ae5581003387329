/* husk df, prune: what takes space, and giving it back. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "proto/husk.pb-c.h"

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

static void use_row(struct table *t, const char *name, const Husk__V1__DiskUse *u)
{
	char size[32], back[32];

	table_cell(t, name);
	table_cellf(t, "%llu", (unsigned long long)u->count);
	table_cellf(t, "%llu", (unsigned long long)u->active);
	table_cell(t, human_size(u->bytes, size));
	table_cell(t, human_size(u->reclaimable, back));
}

static int print_usage(const Husk__V1__DiskUsageResponse *resp)
{
	Husk__V1__DiskUse sum = HUSK__V1__DISK_USE__INIT;
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

static int run_df(struct cli *c, int argc, char **argv)
{
	Husk__V1__DiskUsageRequest req = HUSK__V1__DISK_USAGE_REQUEST__INIT;
	Husk__V1__DiskUsageResponse *resp = NULL;
	bool json = argc == 2 && str_eq(argv[1], "--json");
	struct err err = { 0 };
	json_t *list;
	int code;

	if (argc > 1 && !json)
		return usage_error(&cmd_df, "unknown argument '%s'", argv[1]);
	if (husk_call(c, "DiskUsage", &req, POD_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	if (json) {
		list = json_array();
		for (size_t i = 0; i < resp->n_uses; i++) {
			const Husk__V1__DiskUse *u = resp->uses[i];

			(void)json_array_append_new(
				list,
				json_pack("{s:s, s:I, s:I, s:I, s:I}", "kind", u->kind, "count",
					  (json_int_t)u->count, "active", (json_int_t)u->active,
					  "bytes", (json_int_t)u->bytes, "reclaimable",
					  (json_int_t)u->reclaimable));
		}
		code = print_json(list, true);
	} else {
		code = print_usage(resp);
	}
	husk__v1__disk_usage_response__free_unpacked(resp, NULL);
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
	.run = run_df,
	.needs_server = true,
};

/* ---- prune ---- */

struct prune {
	bool all, blobs, containers, force, dry_run, json;
};

/* Containers that `husk run` made and that have ended, with their pods. */
static int prune_containers(struct cli *c, const struct prune *p, json_t *gone, struct err *err)
{
	Runtime__V1__ListContainersRequest req = RUNTIME__V1__LIST_CONTAINERS_REQUEST__INIT;
	cleanup_containers Runtime__V1__ListContainersResponse *list = NULL;
	int r = runtime_call(c, "ListContainers", &req, CALL_TIMEOUT_MS, &list, err);

	for (size_t i = 0; r == 0 && i < list->n_containers; i++) {
		Runtime__V1__Container *ct = list->containers[i];

		if (!label_of(ct, LABEL_RUN) ||
		    ct->state != RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED)
			continue;
		if (!p->dry_run)
			r = remove_run(c, ct, err);
		if (r == 0)
			(void)json_array_append_new(gone, json_string(label_of(ct, LABEL_NAME)));
	}
	return r;
}

static void ask(const struct prune *p, char *buf, size_t n)
{
	(void)snprintf(buf, n, "This removes %s%s%s. Go on?",
		       p->containers ? "the containers of 'husk run' that have ended, " : "",
		       p->all ? "all images that no container uses" : "images without a name",
		       p->blobs ? ", and the compressed layers that were kept for push and save"
				: "");
}

static int print_pruned(const struct prune *p, const Husk__V1__PruneResponse *resp, json_t *cts)
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

static int prune(struct cli *c, const struct prune *p)
{
	Husk__V1__PruneRequest req = HUSK__V1__PRUNE_REQUEST__INIT;
	Husk__V1__PruneResponse *resp = NULL;
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
	husk__v1__prune_response__free_unpacked(resp, NULL);
	json_decref(cts);
	return code;
}

static int run_prune(struct cli *c, int argc, char **argv)
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

	while ((o = getopt_long(argc, argv, "afn", options, NULL)) != -1) {
		if (o == '?')
			return usage_error(&cmd_prune, "see the options");
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
		ask(&p, question, sizeof(question));
		if (!ask_yes(question))
			return 1;
	}
	return prune(c, &p);
}

const struct command cmd_prune = {
	.name = "prune",
	.args = "[-a] [--blobs] [--containers] [-f | -n] [--json]",
	.summary = "Remove images that nobody uses, and more when asked to",
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
	.run = run_prune,
	.needs_server = true,
};
