/* husk images, rmi, tag, inspect: images that are here. */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

/* ---- images ---- */

struct images {
	bool quiet, json, whole, digests;
	const char *reference; /* --filter reference=PATTERN */
	int dangling;	       /* --filter dangling=: 1, 0, or -1 for both */
	struct table table;
};

static int add_filter(struct images *m, const char *arg)
{
	if (str_starts(arg, "reference="))
		m->reference = arg + strlen("reference=");
	else if (str_eq(arg, "dangling=true"))
		m->dangling = 1;
	else if (str_eq(arg, "dangling=false"))
		m->dangling = 0;
	else
		return usage_error(&cmd_images,
				   "--filter %s: reference=PATTERN or dangling=true|false expected",
				   arg);
	return 0;
}

/* As people would write it, or in full. */
static bool name_fits(const char *pattern, const char *name)
{
	const char *familiar = familiar_name(name);
	const char *slash = strrchr(familiar, '/'), *colon = strrchr(familiar, ':');
	cleanup_free char *repo = colon && (!slash || colon > slash)
					  ? strndup(familiar, (size_t)(colon - familiar))
					  : strdup(familiar);

	return fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, familiar, 0) == 0 ||
	       (repo && fnmatch(pattern, repo, 0) == 0);
}

static bool is_wanted(const struct images *m, const Husk__ImageSummary *im)
{
	if (m->dangling >= 0 && (im->n_repo_tags == 0) != (m->dangling == 1))
		return false;
	for (size_t i = 0; m->reference && i < im->n_repo_tags; i++)
		if (name_fits(m->reference, im->repo_tags[i]))
			return true;
	return !m->reference;
}

static json_t *summary_json(const Husk__ImageSummary *im)
{
	char stored[40];

	return json_pack("{s:s, s:o, s:o, s:I, s:s, s:s, s:b, s:b, s:i}", "id", im->id, "repo_tags",
			 json_strings(im->repo_tags, im->n_repo_tags), "repo_digests",
			 json_strings(im->repo_digests, im->n_repo_digests), "size",
			 (json_int_t)im->size, "created", im->created, "stored",
			 time_text(im->stored_at, stored), "pinned", im->pinned, "damaged",
			 im->damaged, "containers", (int)im->containers);
}

/* The digest that a repository has for this image. */
static const char *digest_in(const Husk__ImageSummary *im, const char *repo, size_t len)
{
	for (size_t i = 0; i < im->n_repo_digests; i++)
		if (strncmp(im->repo_digests[i], repo, len) == 0 && im->repo_digests[i][len] == '@')
			return im->repo_digests[i] + len + 1;
	return "<none>";
}

static void add_row(struct images *m, const Husk__ImageSummary *im, const char *name)
{
	size_t len = strcspn(name, "@"), skip = (size_t)(familiar_name(name) - name);
	const char *tag = name[len] ? NULL : strrchr(name, ':');
	char id[SHORT_ID + 1], age[32], size[32];
	int64_t created = time_parse(im->created);

	if (tag)
		len = (size_t)(tag - name);
	table_cellf(&m->table, "%.*s", (int)(len - skip), name + skip);
	table_cell(&m->table, tag ? tag + 1 : "<none>");
	if (m->digests)
		table_cell(&m->table, digest_in(im, name, len));
	table_cell(&m->table, id_text(im->id, m->whole, id));
	table_cell(&m->table, created ? human_age(created, age) : "-");
	table_cell(&m->table, human_size(im->size, size));
}

static void add_rows(struct images *m, const Husk__ImageSummary *im)
{
	for (size_t i = 0; i < im->n_repo_tags; i++)
		if (!m->reference || name_fits(m->reference, im->repo_tags[i]))
			add_row(m, im, im->repo_tags[i]);
	if (im->n_repo_tags == 0)
		add_row(m, im, im->n_repo_digests ? im->repo_digests[0] : "<none>@");
}

static int print_images(struct images *m, const Husk__ListImagesResponse *resp)
{
	json_t *list = m->json ? json_array() : NULL;
	bool table = !m->json && !m->quiet;
	char id[SHORT_ID + 1];

	if (table)
		table_init(&m->table, m->digests ? "REPOSITORY|TAG|DIGEST|ID|CREATED|>SIZE"
						 : "REPOSITORY|TAG|ID|CREATED|>SIZE");
	for (size_t i = 0; i < resp->n_images; i++) {
		const Husk__ImageSummary *im = resp->images[i];

		if (!is_wanted(m, im))
			continue;
		if (table)
			add_rows(m, im);
		else if (m->json)
			(void)json_array_append_new(list, summary_json(im));
		else
			printf("%s\n", id_text(im->id, m->whole, id));
	}
	if (m->json)
		return print_json(list, true);
	return table && !table_print(&m->table) ? 1 : 0;
}

static int list_images(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'J' },
		{ "no-trunc", no_argument, NULL, 'N' },
		{ "digests", no_argument, NULL, 'D' },
		{ "filter", required_argument, NULL, 'f' },
		{ "all", no_argument, NULL, 'a' },
		{ 0 },
	};
	Husk__ListImagesRequest req = HUSK__LIST_IMAGES_REQUEST__INIT;
	Husk__ListImagesResponse *resp = NULL;
	struct images m = { .dangling = -1 };
	struct err err = { 0 };
	int o, code;

	while ((o = next_option(&cmd_images, argc, argv, ":qf:a", options)) != -1) {
		switch (o) {
		case 'q':
			m.quiet = true;
			break;
		case 'J':
			m.json = true;
			break;
		case 'N':
			m.whole = true;
			break;
		case 'D':
			m.digests = true;
			break;
		case 'a': /* Docker's: here there are no hidden ones */
			break;
		case 'f':
			code = add_filter(&m, optarg);
			if (code)
				return code;
			break;
		default:
			return EXIT_USAGE;
		}
	}
	if (argc - optind > 1)
		return usage_error(&cmd_images, "more than one image given");
	req.image = optind < argc ? argv[optind] : (char *)"";
	if (husk_call(c, "ListImages", &req, CALL_TIMEOUT_MS, &resp, &err) < 0)
		return fail(1, &err);
	code = print_images(&m, resp);
	husk__list_images_response__free_unpacked(resp, NULL);
	return code;
}

/* `images verify` is a command of its own; an image of that name is asked for as verify:latest. */
static int image_run_images(struct cli *c, int argc, char **argv)
{
	if (argc > 1 && str_eq(argv[1], "verify"))
		return cmd_verify.run(c, argc - 1, argv + 1);
	return list_images(c, argc, argv);
}

const struct command cmd_images = {
	.name = "images",
	.args = "[OPTIONS] [IMAGE]",
	.summary = "List the images that are here; 'images verify' checks them",
	.help = "  -q, --quiet          ids only\n"
		"  --json               an array of objects\n"
		"  --digests            with the digests of the manifests\n"
		"  --no-trunc           whole ids\n"
		"  -f, --filter F       reference=PATTERN, dangling=true|false\n\n"
		"  'husk images verify [IMAGE...]' reads every layer and blob again and tells "
		"what\n"
		"  is damaged; 'husk images verify --help' tells more.\n",
	.run = image_run_images,
	.needs_server = true,
};

/* ---- rmi ---- */

static int remove_image(struct cli *c, const char *image, bool force, bool json, struct err *err)
{
	Husk__RemoveImageRequest req = HUSK__REMOVE_IMAGE_REQUEST__INIT;
	Husk__RemoveImageResponse *resp = NULL;
	int r;

	req.image = (char *)image;
	req.force = force;
	r = husk_call(c, "RemoveImage", &req, POD_TIMEOUT_MS, &resp, err);
	if (r == -EBUSY)
		return with_hint(err, r, "'husk rmi -f' removes it in spite of that");
	if (r < 0)
		return r;
	if (json) {
		r = -print_json(json_pack("{s:s, s:o, s:s*}", "image", image, "untagged",
					  json_strings(resp->untagged, resp->n_untagged), "deleted",
					  *resp->deleted ? resp->deleted : NULL),
				false);
	} else {
		for (size_t i = 0; i < resp->n_untagged; i++)
			printf("Untagged: %s\n", resp->untagged[i]);
		if (*resp->deleted)
			printf("Deleted: %s\n", resp->deleted);
	}
	husk__remove_image_response__free_unpacked(resp, NULL);
	return r;
}

static int image_run_rmi(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'J' },
		{ 0 },
	};
	bool force = false, json = false;
	int o, code = 0;

	while ((o = next_option(&cmd_rmi, argc, argv, ":f", options)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		force |= o == 'f';
		json |= o == 'J';
	}
	if (optind == argc)
		return usage_error(&cmd_rmi, "no image given");
	for (int i = optind; i < argc; i++) {
		struct err err = { 0 };
		int r = remove_image(c, argv[i], force, json, &err);

		/* With -f it is enough that it is not there, as Docker has it. */
		if (r < 0 && !(force && r == -ENOENT))
			code = fail(1, &err);
	}
	return code;
}

const struct command cmd_rmi = {
	.name = "rmi",
	.args = "[-f] [--json] IMAGE...",
	.summary = "Remove images, or names of images",
	.help = "  -f, --force   also when a container uses it (its layers stay until that is\n"
		"                gone), or an id has several names; one that is not\n"
		"                there is no error\n"
		"  --json        a line of JSON for each\n\n"
		"  A name goes alone while the image has others. With its last name, or by its "
		"id,\n"
		"  the image goes, and the layers that no other one needs.\n",
	.run = image_run_rmi,
	.needs_server = true,
};

/* ---- tag ---- */

static int image_run_tag(struct cli *c, int argc, char **argv)
{
	Husk__TagImageRequest req = HUSK__TAG_IMAGE_REQUEST__INIT;
	struct err err = { 0 };

	if (next_option(&cmd_tag, argc, argv, ":", NULL) != -1)
		return EXIT_USAGE;
	if (argc - optind != 2)
		return usage_error(&cmd_tag, "an image and its new name are needed");
	req.image = argv[optind];
	req.name = argv[optind + 1];
	return husk_call(c, "TagImage", &req, CALL_TIMEOUT_MS, NULL, &err) < 0 ? fail(1, &err) : 0;
}

const struct command cmd_tag = {
	.name = "tag",
	.args = "IMAGE NAME[:TAG]",
	.summary = "Give an image one more name",
	.help = "  A name that another image has moves to this one.\n",
	.run = image_run_tag,
	.needs_server = true,
};
