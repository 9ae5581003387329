/* Blobs of the store: coming in, complete, documents, what a crash leaves; databases of old. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/util.h"
#include "image/image.h"
#include "image/store/blobs.h"
#include "image/store/content.h"
#include "image/store/gc.h"
#include "image/store/holds.h"
#include "image/store/images.h"
#include "image/store/ingest_wait.h"
#include "image/store/layers.h"
#include "image/store/names.h"
#include "image/store/usage.h"
#include "test/lib/aborts.h"
#include "test/lib/store_dir.h"

static void put_file(const char *name, const char *text, time_t age)
{
	const struct timespec t[] = { { time(NULL) - age, 0 }, { time(NULL) - age, 0 } };
	cleanup_free char *p = path_in(name);
	struct err err = { 0 };

	assert_ok(write_file_atomic(p, text, strlen(text), 0600, false, &err), &err);
	assert_int_equal(utimensat(AT_FDCWD, p, t, 0), 0);
}

static void expect_blob(struct store *s, const char *digest, const char *text)
{
	char buf[64] = "";
	struct err err = { 0 };
	uint64_t size;
	int fd;

	assert_int_equal(blob_has(s, digest, &err), text ? 1 : 0);
	if (!text) {
		assert_int_equal(blob_open(s, digest, &fd, &size, &err), -ENOENT);
		return;
	}
	assert_ok(blob_open(s, digest, &fd, &size, &err), &err);
	assert_int_equal(size, strlen(text));
	assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
	assert_string_equal(buf, text);
	fd_close(&fd);
}

static void come_in(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i, *second;
	struct err err = { 0 };

	assert_int_equal(ingest_open(s, "sha256:../../x", &i, &err), -EINVAL);
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_int_equal(ingest_had(i), 0);
	assert_int_equal(ingest_open(s, DIGEST("1"), &second, &err), -EBUSY);
	assert_ok(write_all(ingest_fd(i), "abc", 3), &err);
	expect_blob(s, DIGEST("1"), NULL);
	ingest_keep(i);
	/* the next process goes on */
	store_close(s);
	s = store_dir_open();
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_int_equal(ingest_had(i), 3);
	assert_ok(write_all(ingest_fd(i), "def", 3), &err);
	ingest_commit(i);
	expect_blob(s, DIGEST("1"), "abcdef");
	assert_int_equal(ingest_open(s, DIGEST("1"), &i, &err), -EEXIST);
	store_close(s);
	s = store_dir_open();
	assert_false(there("ingest/sha256/1" HEX));
	expect_blob(s, DIGEST("1"), "abcdef");
	assert_ok(blob_delete(s, DIGEST("1"), &err), &err);
	assert_ok(blob_delete(s, DIGEST("1"), &err), &err);
	expect_blob(s, DIGEST("1"), NULL);
	assert_false(there("blobs/sha256/1" HEX));
	store_close(s);
}

static void give_up(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };

	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_ok(write_all(ingest_fd(i), "wrong", 5), &err);
	assert_ok(ingest_reset(i, &err), &err);
	assert_ok(write_all(ingest_fd(i), "right", 5), &err);
	ingest_drop(i);
	assert_false(there("ingest/sha256/1" HEX));
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_int_equal(ingest_had(i), 0);
	/* open when the store closes: kept */
	assert_ok(write_all(ingest_fd(i), "ab", 2), &err);
	store_close(s);
	assert_true(there("ingest/sha256/1" HEX));
}

/* ---- files in somebody's hands ---- */

static void count_call(void *arg, int code, const struct err *err)
{
	assert_int_equal(code, 0);
	++*(int *)arg;
	loop_stop(store_loop, 0);
}

static void stop_loop(struct ev_timer *t)
{
	loop_stop(store_loop, 0);
}

/* Runs the loop until something stops it, or for some time. */
static void run_loop(uint64_t ns)
{
	struct ev_timer t = { 0 };

	assert_int_equal(ev_timer_add(store_loop, &t, ns, stop_loop, NULL), 0);
	assert_int_equal(loop_run(store_loop), 0);
	ev_timer_del(&t);
}

/* After ingest_commit the file is the store's. */
static void drop_committed(void *arg)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };

	if (ingest_open(s, DIGEST("1"), &i, &err) < 0)
		return;
	ingest_commit(i);
	ingest_drop(i);
}

static void remove_unknown_wait(void *arg)
{
	ingest_wait_remove(store_dir_open(), DIGEST("1"), arg);
}

static void invariants(void **state)
{
	assert_aborts(drop_committed, NULL, "ingest_drop");
	assert_aborts(remove_unknown_wait, state, "ingest_wait_remove");
}

static void wait_for_job(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i, *second;
	struct err err = { 0 };
	int one = 0, two = 0, other = 0;

	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_int_equal(ingest_open(s, DIGEST("1"), &second, &err), -EBUSY);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &one, &err), &err);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &two, &err), &err);
	ingest_wait_remove(s, DIGEST("1"), &two);
	/* of no interest to who waits for another one */
	assert_ok(ingest_open(s, DIGEST("2"), &second, &err), &err);
	assert_ok(ingest_wait_add(s, DIGEST("2"), count_call, &other, &err), &err);
	ingest_keep(i);
	assert_int_equal(one, 1);
	assert_int_equal(two, 0);
	assert_int_equal(other, 0);
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	ingest_drop(i);
	assert_int_equal(one, 1);
	ingest_wait_remove(s, DIGEST("2"), &other);
	ingest_keep(second);
	/* nobody waits any more when the store closes */
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &one, &err), &err);
	store_close(s);
	assert_int_equal(one, 1);
}

/* A process with the ingest file of DIGEST("1") open and locked, until ret_fd is closed. */
static pid_t lock_elsewhere(int *ret_fd)
{
	cleanup_free char *path = path_in("ingest/sha256/1" HEX);
	int go[2], ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int fd = open(path, O_RDWR | O_CREAT, 0600);

		close(go[1]);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	assert_true(pid > 0);
	close(go[0]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	*ret_fd = go[1];
	return pid;
}

static void wait_for_process(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };
	int one = 0, two = 0, go, status;
	pid_t pid = lock_elsewhere(&go);

	assert_int_equal(ingest_open(s, DIGEST("1"), &i, &err), -EBUSY);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &one, &err), &err);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &two, &err), &err);
	run_loop(50 * NS_PER_MS);
	assert_int_equal(one, 0);
	/* trying in vain wakes nobody up */
	assert_int_equal(ingest_open(s, DIGEST("1"), &i, &err), -EBUSY);
	assert_int_equal(one, 0);
	ingest_wait_remove(s, DIGEST("1"), &two);
	close(go);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	run_loop(10 * NS_PER_S);
	assert_int_equal(one, 1);
	assert_int_equal(two, 0);
	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	ingest_keep(i);
	/* a file that is removed meanwhile is waited for no longer than its lock is held */
	pid = lock_elsewhere(&go);
	assert_int_equal(ingest_open(s, DIGEST("1"), &i, &err), -EBUSY);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &one, &err), &err);
	gc_make_room(s);
	close(go);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	run_loop(10 * NS_PER_S);
	assert_int_equal(one, 2);
	store_close(s);
}

/* The store can close while its thread still waits. */
static void close_while_locked(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };
	int calls = 0, go;
	pid_t pid = lock_elsewhere(&go);

	assert_int_equal(ingest_open(s, DIGEST("1"), &i, &err), -EBUSY);
	assert_ok(ingest_wait_add(s, DIGEST("1"), count_call, &calls, &err), &err);
	store_close(s);
	close(go);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(calls, 0);
}

/* Deleted while it is becoming complete: it does not come back. */
static void unwanted(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };

	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	assert_ok(write_all(ingest_fd(i), "abc", 3), &err);
	ingest_commit(i);
	assert_ok(blob_delete(s, DIGEST("1"), &err), &err);
	expect_blob(s, DIGEST("1"), NULL);
	store_close(s);
	assert_false(there("ingest/sha256/1" HEX));
	assert_false(there("blobs/sha256/1" HEX));
}

static void documents(void **state)
{
	struct store *s = store_dir_open();
	char digest[DIGEST_LEN + 1], again[DIGEST_LEN + 1];
	cleanup_free char *text = NULL, *path = NULL, *big = malloc(IMAGE_MAX_DOCUMENT + 1);
	struct err err = { 0 };
	size_t len;

	assert_ok(blob_put(s, "{}", 2, digest, &err), &err);
	assert_string_equal(
		digest, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
	assert_ok(blob_put(s, "{}", 2, again, &err), &err);
	assert_ok(blob_read(s, digest, &text, &len, &err), &err);
	assert_int_equal(len, 2);
	assert_string_equal(text, "{}");
	assert_int_equal(blob_read(s, DIGEST("1"), &text, &len, &err), -ENOENT);
	assert_int_equal(blob_put(s, big, IMAGE_MAX_DOCUMENT + 1, NULL, &err), -EFBIG);
	/* bytes that changed on disk are noticed */
	store_close(s);
	s = store_dir_open();
	path = str_fmt("blobs/sha256/%s", digest + 7);
	put_file(path, "[]", 0);
	free_ptr(&text);
	assert_int_equal(blob_read(s, digest, &text, &len, &err), -EBADMSG);
	store_close(s);
}

static void crashes(void **state)
{
	struct store *s = store_dir_open();
	struct ingest *i;
	struct err err = { 0 };

	assert_ok(ingest_open(s, DIGEST("1"), &i, &err), &err);
	ingest_commit(i);
	assert_ok(ingest_open(s, DIGEST("2"), &i, &err), &err);
	ingest_commit(i);
	store_close(s);
	put_file("ingest/sha256/3" HEX, "new", INGEST_KEEP_S - 60);
	put_file("ingest/sha256/4" HEX, "old", INGEST_KEEP_S + 60);
	put_file("ingest/sha256/5" HEX, "", 0);
	put_file("ingest/sha256/odd", "x", 0);
	put_file("blobs/sha256/6" HEX, "no row", 0);
	put_file("blobs/sha256/odd", "x", 0);
	cleanup_free char *gone = path_in("blobs/sha256/1" HEX);
	assert_int_equal(unlink(gone), 0);
	s = store_dir_open();
	assert_true(there("ingest/sha256/3" HEX));
	assert_false(there("ingest/sha256/4" HEX));
	assert_false(there("ingest/sha256/5" HEX));
	assert_false(there("ingest/sha256/odd"));
	/* and with a collection, but not what somebody has open */
	put_file("ingest/sha256/7" HEX, "old", INGEST_KEEP_S + 60);
	assert_ok(ingest_open(s, DIGEST("8"), &i, &err), &err);
	put_file("ingest/sha256/8" HEX, "old", INGEST_KEEP_S + 60);
	assert_ok(gc_collect(s, &err), &err);
	assert_false(there("ingest/sha256/7" HEX));
	assert_true(there("ingest/sha256/8" HEX));
	ingest_drop(i);
	assert_false(there("blobs/sha256/6" HEX));
	assert_false(there("blobs/sha256/odd"));
	assert_int_equal(blob_has(s, DIGEST("1"), &err), 0);
	assert_int_equal(blob_has(s, DIGEST("2"), &err), 1);
	store_close(s);
}

/* An image with its manifest: what push and save read, and what goes with it. */
#define CONFIG                                                                                     \
	"{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{},"                              \
	"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST("1") "\"]}}"

static void put_image(struct store *s, const char *ref, char manifest_digest[DIGEST_LEN + 1])
{
	char id[DIGEST_LEN + 1], layer[DIGEST_LEN + 1], choice[DIGEST_LEN + 1];
	char *diff_ids[] = { (char *)DIGEST("1"), NULL };
	static struct manifest m;
	cleanup_free char *text = NULL, *tmp = path_in("tmp/layer");
	struct reference r;
	struct err err = { 0 };

	assert_ok(blob_put(s, CONFIG, strlen(CONFIG), id, &err), &err);
	assert_ok(blob_put(s, "layer", 5, layer, &err), &err);
	text = str_fmt(
		"{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_MANIFEST_OCI
		"\",\"config\":{\"mediaType\":"
		"\"application/vnd.oci.image.config.v1+json\",\"digest\":\"%s\",\"size\":%zu}"
		",\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\","
		"\"digest\":\"%s\",\"size\":5}]}",
		id, strlen(CONFIG), layer);
	assert_ok(blob_put(s, text, strlen(text), manifest_digest, &err), &err);
	assert_ok(manifest_parse(text, strlen(text), "amd64", &m, choice, &err), &err);
	assert_ok(write_file_atomic(tmp, "layer", 5, 0600, false, &err), &err);
	assert_ok(layers_add(s, DIGEST("1"), tmp, &(struct layer_facts){ 0 }, &err), &err);
	assert_ok(reference_parse(ref, &r, &err), &err);
	struct image_commit c = { .id = id,
				  .config = CONFIG,
				  .config_len = strlen(CONFIG),
				  .ref = &r,
				  .digest = manifest_digest,
				  .diff_ids = diff_ids,
				  .manifest = &m,
				  .manifest_digest = manifest_digest,
				  .manifest_size = strlen(text) };
	assert_ok(images_add(s, &c, &err), &err);
}

static size_t count_files(const char *name)
{
	cleanup_free char *command = str_fmt("ls %s/%s | wc -l", store_dir_path, name);
	FILE *f = popen(command, "r");
	size_t n = 1000;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%zu", &n), 1);
	pclose(f);
	return n;
}

static void content(void **state)
{
	struct store *s = store_dir_open();
	char manifest[DIGEST_LEN + 1];
	struct image_use u[IMAGE_USE_KINDS];
	struct image_pruned pruned;
	struct content *c;
	struct err err = { 0 };

	put_image(s, "a", manifest);
	store_close(s);
	assert_int_equal(count_files("blobs/sha256"), 3);
	s = store_dir_open();
	assert_int_equal(content_open(s, "b", &c, &err), -ENOENT);
	assert_ok(names_tag(s, "a", "h.example/b:2", NULL, &err), &err);
	assert_ok(content_open(s, "h.example/b:2", &c, &err), &err);
	assert_string_equal(c->manifest_digest, manifest);
	assert_string_equal(c->target, manifest);
	assert_string_equal(c->manifest.media_type, MEDIA_MANIFEST_OCI);
	assert_int_equal(c->manifest.n_layers, 1);
	expect_blob(s, c->manifest.layers[0].digest, "layer");
	assert_ok(usage_get(s, u, &err), &err);
	assert_int_equal(u[IMAGE_USE_BLOBS].count, 3);
	assert_int_equal(u[IMAGE_USE_BLOBS].active, 3);
	assert_int_equal(u[IMAGE_USE_BLOBS].bytes, 3 * 4096);
	assert_int_equal(u[IMAGE_USE_BLOBS].reclaimable, 4096);
	/* protected while somebody reads, gone with the image after */
	struct image_prune_options o = { .blobs = true };
	assert_ok(usage_prune(s, &o, &pruned, &err), &err);
	assert_int_equal(pruned.blobs, 0);
	image_pruned_fini(&pruned);
	assert_int_equal(count_files("blobs/sha256"), 3);
	content_free(c);
	assert_ok(usage_prune(s, &o, &pruned, &err), &err);
	assert_int_equal(pruned.blobs, 1);
	assert_int_equal(pruned.bytes, 4096);
	image_pruned_fini(&pruned);
	assert_int_equal(count_files("blobs/sha256"), 2);
	assert_ok(content_open(s, "a", &c, &err), &err);
	assert_ok(images_remove(s, "a", &err), &err);
	assert_int_equal(count_files("blobs/sha256"), 2);
	content_free(c);
	assert_int_equal(count_files("blobs/sha256"), 0);
	store_close(s);
}

/* ---- databases of other versions ---- */

static const char version_1[] =
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
	"CREATE TABLE IF NOT EXISTS layers(diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL)"
	" WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS images(id TEXT PRIMARY KEY, config BLOB NOT NULL,"
	" created INTEGER NOT NULL, pinned INTEGER NOT NULL DEFAULT 0,"
	" removed INTEGER NOT NULL DEFAULT 0);"
	"CREATE TABLE IF NOT EXISTS image_layers(image TEXT NOT NULL REFERENCES images(id)"
	" ON DELETE CASCADE, pos INTEGER NOT NULL, diff_id TEXT NOT NULL REFERENCES "
	"layers(diff_id),"
	" PRIMARY KEY(image, pos)) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS image_layers_by_diff_id ON image_layers(diff_id);"
	"CREATE TABLE IF NOT EXISTS names(name TEXT PRIMARY KEY, image TEXT NOT NULL"
	" REFERENCES images(id) ON DELETE CASCADE) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS names_by_image ON names(image);"
	"CREATE TABLE IF NOT EXISTS holds(holder TEXT PRIMARY KEY, image TEXT NOT NULL"
	" REFERENCES images(id)) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS holds_by_image ON holds(image);"
	"PRAGMA user_version=1;";

static void run_sql(const char *sql)
{
	cleanup_free char *path = path_in("images.db");
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void old_database(void **state)
{
	static const char config[] =
		"{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST("1") "\"]}}";
	cleanup_free char *rows = NULL, *layers = path_in("layers/sha256");
	cleanup_image_info struct image_info *i = NULL;
	cleanup_strv char **holders = NULL;
	char id[DIGEST_LEN + 1];
	struct store *s;
	struct err err = { 0 };

	assert_int_equal(digest_of(config, strlen(config), id), 0);
	assert_ok(mkdir_p(layers, 0700, &err), &err);
	put_file("layers/sha256/1" HEX ".ext4", "layer", 0);
	run_sql(version_1);
	rows =
		str_fmt("INSERT INTO layers VALUES('%s', 4096);"
			"INSERT INTO images VALUES('%s', CAST('%s' AS BLOB), 7, 1, 0);"
			"INSERT INTO image_layers VALUES('%s', 0, '%s');"
			"INSERT INTO names VALUES('docker.io/library/a:latest', '%s'),"
			" ('docker.io/library/a@%s', '%s');"
			"INSERT INTO holds VALUES('c1', '%s');",
			DIGEST("1"), id, config, id, DIGEST("1"), id, DIGEST("2"), id, id);
	run_sql(rows);
	for (int k = 0; k < 2; k++) {
		s = store_dir_open();
		assert_ok(images_get(s, "a", &i, &err), &err);
		assert_string_equal(i->id, id);
		assert_true(i->pinned);
		assert_int_equal(i->created_ns, 7);
		assert_int_equal(strv_len(i->repo_digests), 1);
		image_info_freep(&i);
		i = NULL;
		store_close(s);
	}
	s = store_dir_open();
	assert_ok(holds_list(s, &holders, &err), &err);
	assert_int_equal(strv_len(holders), 1);
	assert_ok(images_remove(s, "a", &err), &err);
	assert_ok(holds_end(s, "c1", &err), &err);
	assert_false(there("layers/sha256/1" HEX ".ext4"));
	store_close(s);
}

static void newer_database(void **state)
{
	struct store *s;
	struct err err = { 0 };

	run_sql("PRAGMA user_version=1000");
	assert_int_equal(store_dir_try(&s, &err), -ENOTSUP);
	assert_text(err.msg, "newer version");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(come_in, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(give_up, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(wait_for_job, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(wait_for_process, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(close_while_locked, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(invariants, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(unwanted, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(documents, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(content, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(crashes, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(old_database, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(newer_database, store_dir_setup,
						store_dir_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
