/* The store without a registry: layers and images put in by hand, and what a crash leaves behind.
 */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "image/image.h"
#include "image/manifest.h"
#include "image/store/db.h"
#include "image/store/disk.h"
#include "image/store/gc.h"
#include "image/store/holds.h"
#include "image/store/images.h"
#include "image/store/internal.h"
#include "image/store/layers.h"
#include "image/store/names.h"
#include "image/store/scratch.h"
#include "image/store/usage.h"
#include "test/lib/store_dir.h"

static void put_layer(struct store *s, const char *diff_id)
{
	cleanup_free char *tmp = path_in("tmp/layer");
	struct err err = { 0 };

	assert_ok(write_file_atomic(tmp, "layer", 5, 0600, false, &err), &err);
	assert_ok(layers_add(s, diff_id, tmp, &(struct layer_facts){ 0 }, &err), &err);
}

/* An image of the given layers; its id is made of its own configuration. */
static void put_image(struct store *s, const char *ref, const char *user, const char *a,
		      const char *b, char id[DIGEST_LEN + 1])
{
	cleanup_free char *config =
		str_fmt("{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"User\":\"%s\"},"
			"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"%s%s%s]}}",
			user, a, b ? ",\"" : "", b ? b : "", b ? "\"" : "");
	char *diff_ids[] = { (char *)a, (char *)b, NULL };
	char digest[DIGEST_LEN + 1];
	struct reference r;
	struct err err = { 0 };

	assert_non_null(config);
	assert_int_equal(digest_of(config, strlen(config), id), 0);
	assert_int_equal(digest_of(id, DIGEST_LEN, digest), 0); /* stands for the manifest's */
	assert_ok(reference_parse(ref, &r, &err), &err);
	if (*r.digest)
		memcpy(digest, r.digest, sizeof(digest));
	struct image_commit c = { .id = id,
				  .config = config,
				  .config_len = strlen(config),
				  .ref = &r,
				  .digest = digest,
				  .diff_ids = diff_ids };
	for (char **d = diff_ids; *d; d++)
		if (layers_has(s, *d, false, &err) == 0)
			put_layer(s, *d);
	assert_ok(images_add(s, &c, &err), &err);
}

static void expect(struct store *s, const char *ref, const char *id)
{
	cleanup_image_info struct image_info *i = NULL;
	struct err err = { 0 };
	int r = images_get(s, ref, &i, &err);

	if (!id) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	assert_ok(r, &err);
	assert_string_equal(i->id, id);
}

static void look_up(void **state)
{
	struct store *s = store_dir_open();
	char id[DIGEST_LEN + 1], digest[DIGEST_LEN + 1], short_id[20];
	cleanup_free char *by_digest = NULL;
	cleanup_image_info struct image_info *i = NULL;
	struct err err = { 0 };

	put_image(s, "h.example/app:1", "1000:5", DIGEST("1"), DIGEST("2"), id);
	put_image(s, "other.example/app", "1000:5", DIGEST("1"), DIGEST("2"),
		  id); /* the same image */
	assert_int_equal(digest_of(id, DIGEST_LEN, digest), 0);
	by_digest = str_fmt("h.example/app@%s", digest);
	snprintf(short_id, sizeof(short_id), "%.13s", id + 7);
	expect(s, "h.example/app:1", id);
	expect(s, "other.example/app", id);
	expect(s, "other.example/app:latest", id);
	expect(s, by_digest, id);
	expect(s, id, id);
	expect(s, id + 7, id);
	expect(s, short_id, id);
	expect(s, "h.example/app", NULL);
	expect(s, "h.example/app:2", NULL);
	expect(s, "feed", NULL);
	assert_int_equal(images_get(s, "Not A Name", &i, &err), -EINVAL);
	assert_int_equal(images_get(s, "", &i, &err), -EINVAL);
	assert_ok(images_get(s, id, &i, &err), &err);
	assert_int_equal(strv_len(i->repo_tags), 2);
	assert_string_equal(i->repo_tags[0], "h.example/app:1");
	assert_int_equal(strv_len(i->repo_digests), 2);
	assert_true(i->has_uid);
	assert_int_equal(i->uid, 1000);
	assert_string_equal(i->username, "");
	assert_true(i->size > 0);
	store_close(s);
}

static bool has(char *const *v, const char *s)
{
	for (; *v; v++)
		if (str_eq(*v, s))
			return true;
	return false;
}

/* The same image comes out of an archive as an index of one manifest. */
static void load_image(struct store *s, const char *id, const char *index, const char *manifest,
		       const char *name)
{
	cleanup_image_info struct image_info *i = NULL;
	char *names[] = { (char *)name, NULL };
	struct manifest m = { .media_type = MEDIA_MANIFEST_OCI };
	struct err err = { 0 };

	assert_ok(images_get(s, id, &i, &err), &err);
	struct image_commit c = { .id = id,
				  .config = i->config_json,
				  .config_len = strlen(i->config_json),
				  .names = names,
				  .digest = index,
				  .diff_ids = i->config.diff_ids,
				  .manifest = &m,
				  .manifest_digest = manifest };
	assert_ok(images_add(s, &c, &err), &err);
}

/* name@digest is found for each name that stands for the digest, whoever gave the name. */
static void digests_of_names(void **state)
{
	struct store *s = store_dir_open();
	cleanup_image_info struct image_info *i = NULL, *left = NULL, *none = NULL;
	struct image_untagged u;
	char id[DIGEST_LEN + 1], digest[DIGEST_LEN + 1];
	cleanup_free char *pulled = NULL, *given = NULL, *loaded = NULL, *near = NULL;
	struct err err = { 0 };

	put_image(s, "h.example/app:1", "1000:5", DIGEST("1"), DIGEST("2"), id);
	assert_int_equal(digest_of(id, DIGEST_LEN, digest), 0);
	assert_ok(names_tag(s, "h.example/app:1", "h.example:5000/b/app:new", NULL, &err), &err);
	load_image(s, id, DIGEST("c"), DIGEST("d"), "l.example/app:1");
	pulled = str_fmt("h.example/app@%s", digest);
	given = str_fmt("h.example:5000/b/app:new@%s", digest);
	loaded = str_fmt("l.example/app@%s", DIGEST("c"));
	near = str_fmt("h.example/ap@%s", digest);
	expect(s, pulled, id);
	expect(s, given, id);
	expect(s, loaded, id);
	expect(s, "l.example/app@" DIGEST("d"), id); /* the manifest of that index */
	expect(s, "l.example/app:2@" DIGEST("d"), id);
	expect(s, "h.example/app@" DIGEST("c"), NULL);
	expect(s, "l.example/app@" DIGEST("e"), NULL);
	expect(s, near, NULL);
	assert_ok(images_get(s, id, &i, &err), &err);
	assert_int_equal(strv_len(i->repo_digests), 3);
	memmove(strstr(given, ":new"), strchr(given, '@'), DIGEST_LEN + 2);
	assert_true(has(i->repo_digests, pulled) && has(i->repo_digests, given) &&
		    has(i->repo_digests, loaded));
	/* one of the names goes, with its digest; the others stay */
	assert_ok(names_untag(s, "h.example:5000/b/app:new", false, &u, &err), &err);
	image_untagged_fini(&u);
	expect(s, given, NULL);
	expect(s, pulled, id);
	expect(s, loaded, id);
	assert_ok(images_get(s, id, &left, &err), &err);
	assert_int_equal(strv_len(left->repo_digests), 2);
	assert_ok(images_remove(s, loaded, &err), &err);
	assert_int_equal(images_get(s, pulled, &none, &err), -ENOENT);
	store_close(s);
}

static void digest_only(void **state)
{
	struct store *s = store_dir_open();
	cleanup_image_info struct image_info *i = NULL;
	char id[DIGEST_LEN + 1];
	struct err err = { 0 };

	put_image(s, "h.example/app@" DIGEST("a"), "www:www", DIGEST("1"), NULL, id);
	assert_ok(images_get(s, "h.example/app@" DIGEST("a"), &i, &err), &err);
	assert_int_equal(strv_len(i->repo_tags), 0);
	assert_int_equal(strv_len(i->repo_digests), 1);
	assert_false(i->has_uid);
	assert_string_equal(i->username, "www");
	store_close(s);
}

static void moved_tag(void **state)
{
	struct store *s = store_dir_open();
	char one[DIGEST_LEN + 1], two[DIGEST_LEN + 1];
	struct image_info **list;
	struct err err = { 0 };
	size_t n;

	put_image(s, "app", "1", DIGEST("1"), NULL, one);
	put_image(s, "app", "2", DIGEST("1"), NULL, two);
	expect(s, "app", two);
	expect(s, one, one); /* without a tag, but still there */
	assert_ok(images_list(s, NULL, &list, &n, &err), &err);
	assert_int_equal(n, 2);
	image_list_free(list, n);
	assert_ok(images_list(s, "app", &list, &n, &err), &err);
	assert_int_equal(n, 1);
	image_list_free(list, n);
	assert_ok(images_list(s, "missing", &list, &n, &err), &err);
	assert_int_equal(n, 0);
	image_list_free(list, n);
	store_close(s);
}

static void removal(void **state)
{
	struct store *s = store_dir_open();
	char one[DIGEST_LEN + 1], two[DIGEST_LEN + 1];
	struct err err = { 0 };

	put_image(s, "a", "1", DIGEST("1"), DIGEST("2"), one);
	put_image(s, "b", "1", DIGEST("1"), DIGEST("3"), two);
	assert_ok(images_remove(s, "a", &err), &err);
	expect(s, "a", NULL);
	expect(s, one, NULL);
	assert_true(there("layers/sha256/1" HEX ".ext4")); /* b has it, too */
	assert_false(there("layers/sha256/2" HEX ".ext4"));
	assert_ok(images_remove(s, "a", &err), &err); /* again */
	assert_ok(images_remove(s, two + 7, &err), &err);
	assert_false(there("layers/sha256/1" HEX ".ext4"));
	assert_false(there("layers/sha256/3" HEX ".ext4"));
	store_close(s);
}

static void holds(void **state)
{
	struct store *s = store_dir_open();
	cleanup_strv char **layers = NULL, **again = NULL, **holders = NULL;
	char id[DIGEST_LEN + 1];
	struct err err = { 0 };

	put_image(s, "a", "1", DIGEST("1"), DIGEST("2"), id);
	assert_ok(layers_paths(s, id, &layers, &err), &err);
	assert_int_equal(strv_len(layers), 2);
	assert_true(str_ends(layers[0], "/1" HEX ".ext4"));
	assert_true(str_ends(layers[1], "/2" HEX ".ext4"));
	assert_int_equal(holds_add(s, DIGEST("9"), "c1", &err), -ENOENT);
	assert_ok(holds_add(s, id, "c1", &err), &err);
	assert_ok(holds_add(s, id, "c1", &err), &err);
	assert_ok(holds_add(s, id, "c2", &err), &err);
	assert_ok(images_remove(s, "a", &err), &err);
	expect(s, "a", NULL);
	expect(s, id, NULL);
	/* held, also over a restart */
	store_close(s);
	s = store_dir_open();
	assert_ok(layers_paths(s, id, &again, &err), &err);
	assert_int_equal(access(again[0], F_OK), 0);
	assert_ok(holds_list(s, &holders, &err), &err);
	assert_int_equal(strv_len(holders), 2);
	assert_ok(holds_end(s, "c1", &err), &err);
	assert_int_equal(access(again[0], F_OK), 0);
	/* pulled again meanwhile: it is an image like any other, and stays */
	put_image(s, "a", "1", DIGEST("1"), DIGEST("2"), id);
	assert_ok(holds_end(s, "c2", &err), &err);
	assert_ok(holds_end(s, "unknown", &err), &err);
	expect(s, "a", id);
	assert_ok(holds_add(s, id, "c3", &err), &err);
	assert_ok(images_remove(s, "a", &err), &err);
	assert_ok(holds_end(s, "c3", &err), &err);
	assert_int_not_equal(access(again[0], F_OK), 0);
	store_close(s);
}

/* What can be found on disk after power was lost at any point. */
static void crashes(void **state)
{
	struct store *s = store_dir_open();
	cleanup_free char *stray = NULL, *gone = NULL, *tmp = NULL, *odd = NULL;
	char whole[DIGEST_LEN + 1], broken[DIGEST_LEN + 1];
	struct err err = { 0 };

	put_image(s, "whole", "1", DIGEST("1"), NULL, whole);
	put_image(s, "broken", "1", DIGEST("1"), DIGEST("2"), broken);
	/* row and file, but the image was not committed: now, and two days ago */
	put_layer(s, DIGEST("3"));
	put_layer(s, DIGEST("5"));
	assert_ok(db_run(s, &err,
			 "UPDATE layers SET pending=pending-2*24*3600 WHERE diff_id='" DIGEST(
				 "5") "'",
			 NULL),
		  &err);
	store_close(s);
	/* renamed, but no row; half written; a row whose file has gone; somebody's litter */
	stray = path_in("layers/sha256/4" HEX ".ext4");
	tmp = path_in("tmp/77.ext4");
	odd = path_in("layers/sha256/odd");
	gone = path_in("layers/sha256/2" HEX ".ext4");
	assert_ok(write_file_atomic(stray, "x", 1, 0600, false, &err), &err);
	assert_ok(write_file_atomic(tmp, "x", 1, 0600, false, &err), &err);
	assert_int_equal(mkdir(odd, 0700), 0);
	assert_int_equal(unlink(gone), 0);
	s = store_dir_open();
	expect(s, "whole", whole);
	expect(s, "broken", NULL);
	assert_true(there("layers/sha256/1" HEX ".ext4"));
	assert_true(there("layers/sha256/3" HEX ".ext4"));
	assert_int_equal(layers_has(s, DIGEST("3"), false, &err), 1);
	assert_false(there("layers/sha256/4" HEX ".ext4"));
	assert_false(there("layers/sha256/5" HEX ".ext4"));
	assert_false(there("layers/sha256/odd"));
	assert_false(there("tmp/77.ext4"));
	assert_int_equal(layers_has(s, DIGEST("2"), false, &err), 0);
	store_close(s);
}

static void leases(void **state)
{
	struct store *s = store_dir_open();
	char id[DIGEST_LEN + 1];
	struct lease *l, *other;
	struct err err = { 0 };

	put_layer(s, DIGEST("7"));
	put_image(s, "a", "1", DIGEST("1"), NULL, id);
	assert_ok(lease_new(s, &l, &err), &err);
	assert_ok(lease_new(s, &other, &err), &err);
	assert_int_equal(lease_add(l, "sha256:1", &err), -EINVAL);
	assert_ok(lease_add(l, DIGEST("1"), &err), &err);
	assert_ok(lease_add(l, DIGEST("1"), &err), &err);
	assert_ok(lease_add(l, DIGEST("7"), &err), &err);
	assert_ok(lease_add(other, DIGEST("1"), &err), &err);
	assert_ok(images_remove(s, "a", &err), &err);
	assert_true(there("layers/sha256/1" HEX ".ext4"));
	lease_end(other, true);
	assert_true(there("layers/sha256/1" HEX ".ext4"));
	lease_end(l, false);
	assert_false(there("layers/sha256/1" HEX ".ext4"));
	/* no image has had it: the next pull goes on with it, unless it is bad or the disk full */
	assert_true(there("layers/sha256/7" HEX ".ext4"));
	assert_ok(lease_new(s, &l, &err), &err);
	assert_ok(lease_add(l, DIGEST("7"), &err), &err);
	lease_end(l, true);
	assert_false(there("layers/sha256/7" HEX ".ext4"));
	put_layer(s, DIGEST("7"));
	gc_make_room(s);
	assert_false(there("layers/sha256/7" HEX ".ext4"));
	store_close(s);
}

/* What a layer's file was when it was read first stays, until the layer is made anew. */
static void baselines(void **state)
{
	struct store *s = store_dir_open();
	char text[DIGEST_LEN + 1];
	struct err err = { 0 };

	assert_int_equal(layers_without_baseline(s, text, &err), -ENOENT);
	put_layer(s, DIGEST("1"));
	put_layer(s, DIGEST("2"));
	assert_ok(layers_baseline(s, DIGEST("1"), text, &err), &err);
	assert_string_equal(text, "");
	assert_ok(layers_set_baseline(s, DIGEST("1"), DIGEST("a"), &err), &err);
	assert_ok(layers_set_baseline(s, DIGEST("1"), DIGEST("b"), &err), &err);
	assert_ok(layers_baseline(s, DIGEST("1"), text, &err), &err);
	assert_string_equal(text, DIGEST("a"));
	assert_ok(layers_without_baseline(s, text, &err), &err);
	assert_string_equal(text, DIGEST("2"));
	assert_ok(layers_mark_damaged(s, DIGEST("2"), &err), &err);
	assert_int_equal(layers_without_baseline(s, text, &err), -ENOENT);
	/* damaged, and made anew */
	assert_ok(layers_mark_damaged(s, DIGEST("1"), &err), &err);
	put_layer(s, DIGEST("1"));
	assert_ok(layers_baseline(s, DIGEST("1"), text, &err), &err);
	assert_string_equal(text, "");
	/* of none */
	assert_ok(layers_baseline(s, DIGEST("3"), text, &err), &err);
	assert_string_equal(text, "");
	store_close(s);
}

/* Known to be damaged: its images stay, and the next pull makes it anew. */
static void damaged(void **state)
{
	struct store *s = store_dir_open();
	cleanup_image_info struct image_info *i = NULL, *again = NULL;
	char id[DIGEST_LEN + 1];
	struct err err = { 0 };

	put_image(s, "a", "1", DIGEST("1"), DIGEST("2"), id);
	assert_ok(db_run(s, &err, "UPDATE layers SET damaged=1 WHERE diff_id='" DIGEST("1") "'",
			 NULL),
		  &err);
	for (int k = 0; k < 2; k++) {
		store_close(s);
		s = store_dir_open();
		assert_int_equal(layers_has(s, DIGEST("1"), false, &err), 0);
		assert_int_equal(layers_has(s, DIGEST("2"), false, &err), 1);
	}
	assert_ok(images_get(s, "a", &i, &err), &err);
	assert_true(i->damaged);
	put_layer(s, DIGEST("1"));
	assert_int_equal(layers_has(s, DIGEST("1"), false, &err), 1);
	assert_ok(images_get(s, "a", &again, &err), &err);
	assert_false(again->damaged);
	store_close(s);
}

static void expect_untagged(struct store *s, const char *ref, bool force, const char *names,
			    const char *deleted)
{
	struct image_untagged u;
	struct err err = { 0 };
	char got[1000] = "";
	size_t at = 0;

	assert_ok(names_untag(s, ref, force, &u, &err), &err);
	for (char **n = u.names; *n && at < sizeof(got); n++)
		at += (size_t)snprintf(got + at, sizeof(got) - at, "%s ", *n);
	assert_string_equal(got, names);
	assert_true(str_eq(u.deleted, deleted));
	image_untagged_fini(&u);
}

static void untag(void **state)
{
	struct store *s = store_dir_open();
	struct image_untagged u;
	char id[DIGEST_LEN + 1], digest[DIGEST_LEN + 1], names[400];
	cleanup_free char *name = NULL;
	struct err err = { 0 };

	put_image(s, "h.example/a:1", "1", DIGEST("1"), NULL, id);
	assert_int_equal(digest_of(id, DIGEST_LEN, digest), 0);
	assert_ok(names_tag(s, "h.example/a:1", "h.example/a:2", &name, &err), &err);
	assert_string_equal(name, "h.example/a:2");
	assert_ok(names_tag(s, id + 7, "b", NULL, &err), &err);
	assert_int_equal(names_tag(s, id, "b@" DIGEST("1"), NULL, &err), -EINVAL);
	assert_int_equal(names_tag(s, "none", "b", NULL, &err), -ENOENT);
	assert_int_equal(names_untag(s, "none", false, &u, &err), -ENOENT);
	/* names in two repositories */
	assert_int_equal(names_untag(s, id, false, &u, &err), -EBUSY);
	expect_untagged(s, "h.example/a:1", false, "h.example/a:1 ", NULL);
	expect(s, "h.example/a:2", id);
	/* the last tag of its repository takes the digest along */
	snprintf(names, sizeof(names), "h.example/a:2 h.example/a@%s ", digest);
	expect_untagged(s, "h.example/a:2", false, names, NULL);
	expect(s, "b", id);
	assert_ok(holds_add(s, id, "c1", &err), &err);
	assert_int_equal(names_untag(s, "b", false, &u, &err), -EBUSY);
	assert_text(err.msg, "used by 1 container");
	expect_untagged(s, "b", true, "docker.io/library/b:latest ", id);
	expect(s, id, NULL);
	assert_true(there("layers/sha256/1" HEX ".ext4"));
	assert_ok(holds_end(s, "c1", &err), &err);
	assert_false(there("layers/sha256/1" HEX ".ext4"));
	/* by id */
	put_image(s, "h.example/a:1", "1", DIGEST("1"), NULL, id);
	snprintf(names, sizeof(names), "h.example/a:1 h.example/a@%s ", digest);
	expect_untagged(s, id + 7, false, names, id);
	store_close(s);
}

static void prune_expect(struct store *s, struct image_prune_options o, size_t images,
			 uint64_t layers)
{
	struct image_pruned p;
	struct err err = { 0 };

	for (int dry = 1; dry >= 0; dry--) {
		o.dry_run = dry;
		assert_ok(usage_prune(s, &o, &p, &err), &err);
		assert_int_equal(strv_len(p.images), images);
		assert_int_equal(p.layers, layers);
		assert_int_equal(p.bytes, layers * 4096);
		image_pruned_fini(&p);
	}
}

static void prune(void **state)
{
	static const char *const pinned[] = { "kept", NULL };
	const struct store_options o = { .loop = store_loop,
					 .dir = store_dir_path,
					 .pinned = (char *const *)pinned };
	char id[DIGEST_LEN + 1], held[DIGEST_LEN + 1], kept[DIGEST_LEN + 1];
	struct image_use u[IMAGE_USE_KINDS];
	struct image_fs_usage fs;
	struct store *s;
	struct err err = { 0 };
	uint64_t bytes = 0, inodes = 0;

	assert_ok(store_open(&o, &s, &err), &err);
	put_image(s, "a", "1", DIGEST("1"), DIGEST("2"), id);
	put_image(s, "a", "2", DIGEST("1"), DIGEST("3"), id); /* the tag moves */
	put_image(s, "held", "3", DIGEST("4"), NULL, held);
	put_image(s, "kept", "4", DIGEST("5"), NULL, kept);
	assert_ok(holds_add(s, held, "c1", &err), &err);
	assert_ok(usage_get(s, u, &err), &err);
	assert_int_equal(u[IMAGE_USE_IMAGES].count, 4);
	assert_int_equal(u[IMAGE_USE_IMAGES].active, 1);
	assert_int_equal(u[IMAGE_USE_IMAGES].bytes, 5 * 4096);
	assert_int_equal(u[IMAGE_USE_IMAGES].reclaimable, 3 * 4096);
	assert_ok(usage_fs_info(s, &fs, &err), &err);
	for (int k = 0; k < IMAGE_USE_KINDS; k++) {
		bytes += u[k].bytes;
		inodes += u[k].inodes;
	}
	assert_int_equal(bytes, fs.used_bytes);
	assert_int_equal(inodes, fs.inodes_used);
	prune_expect(s, (struct image_prune_options){ .dangling = true }, 1, 1);
	expect(s, "a", id);
	prune_expect(s, (struct image_prune_options){ .all = true }, 1, 2);
	expect(s, "a", NULL);
	expect(s, "held", held);
	expect(s, "kept", kept);
	put_layer(s, DIGEST("7"));
	prune_expect(s, (struct image_prune_options){ .all = true }, 0, 0);
	prune_expect(s, (struct image_prune_options){ .blobs = true }, 0, 1);
	assert_false(there("layers/sha256/7" HEX ".ext4"));
	store_close(s);
}

static void locked(void **state)
{
	struct store *s = store_dir_open(), *second;
	struct err err = { 0 };

	assert_int_equal(store_dir_try(&second, &err), -EBUSY);
	assert_text(err.msg, "in use");
	store_close(s);
	store_close(store_dir_open());
}

static void use_of_disk(void **state)
{
	struct store *s = store_dir_open();
	struct image_fs_usage before, after;
	char id[DIGEST_LEN + 1];
	struct err err = { 0 };

	assert_ok(usage_fs_info(s, &before, &err), &err);
	put_image(s, "a", "1", DIGEST("1"), NULL, id);
	assert_ok(usage_fs_info(s, &after, &err), &err);
	assert_true(after.used_bytes > before.used_bytes);
	assert_true(after.inodes_used >= before.inodes_used + 1);
	assert_true(after.timestamp_ns > 0);
	assert_string_equal(after.mountpoint, store_dir_path);
	store_close(s);
}

static int synced; /* code of the last one, 1 = none came */

static void on_synced(void *arg, int code, const struct err *err)
{
	synced = code;
	loop_stop(arg, 0);
}

static void sync_now(struct store *s)
{
	struct disk_sync *y;
	struct err err = { 0 };

	synced = 1;
	assert_ok(disk_sync(s, on_synced, s->loop, &y, &err), &err);
	assert_int_equal(synced, 1); /* never from inside */
	assert_int_equal(loop_run(s->loop), 0);
}

static int make_scratch(struct store *s, const char *path)
{
	struct err err = { 0 };

	synced = 1;
	assert_ok(scratch_create(s, path, on_synced, s->loop, &err), &err);
	assert_int_equal(synced, 1);
	assert_int_equal(loop_run(s->loop), 0);
	return synced;
}

static void scratch(void **state)
{
	struct store *s = store_dir_open();
	cleanup_free char *dir = path_in("ct"), *path = path_in("ct/scratch");
	struct err err = { 0 };
	struct stat st;

	assert_int_equal(make_scratch(s, path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, IMAGE_SCRATCH_SIZE);
	assert_true(st.st_blocks * 512 < (off_t)(512 * KIB));
	assert_int_equal(make_scratch(s, path), -EEXIST);
	/* Removal comes after a disk that is still being made. */
	disk_remove(s->disk, dir);
	synced = 1;
	assert_ok(scratch_create(s, path, on_synced, s->loop, &err), &err);
	disk_remove(s->disk, dir);
	store_close(s);
	assert_int_equal(synced, 0);
	assert_int_equal(access(dir, F_OK), -1);
}

/* What a pull has reported is on the disk; the loop does not wait for it. */
static void syncing(void **state)
{
	char id[DIGEST_LEN + 1];
	cleanup_free char *dir = path_in("layers/sha256"), *away = path_in("layers/away");
	struct store *s = store_dir_open();
	struct disk_sync *y;
	struct err err = { 0 };

	sync_now(s);
	assert_int_equal(synced, 0);
	put_image(s, "h.example/a:1", "u", DIGEST("1"), NULL, id);
	assert_true(s->layers_unsynced);
	sync_now(s);
	assert_int_equal(synced, 0);
	assert_false(s->layers_unsynced);
	/* A failure is told, and the next one tries again. */
	s->layers_unsynced = true;
	assert_int_equal(rename(dir, away), 0);
	sync_now(s);
	assert_int_equal(synced, -ENOENT);
	assert_true(s->layers_unsynced);
	assert_int_equal(rename(away, dir), 0);
	sync_now(s);
	assert_int_equal(synced, 0);
	/* One that nobody waits for any more. */
	synced = 1;
	assert_ok(disk_sync(s, on_synced, s->loop, &y, &err), &err);
	disk_sync_forget(y);
	store_close(s);
	assert_int_equal(synced, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(look_up, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(digests_of_names, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(digest_only, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(moved_tag, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(removal, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(holds, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(crashes, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(leases, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(baselines, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(damaged, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(untag, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(prune, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(locked, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(use_of_disk, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(syncing, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(scratch, store_dir_setup, store_dir_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
