/* A database file that a thread writes: order, answers, full disks, the end, kill -9. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sql/file.h"
#include "base/util.h"

#define NOT_YET 1
#define MANY 500

static const char *const steps[] = {
	"CREATE TABLE t(n INTEGER PRIMARY KEY, name TEXT, bytes BLOB);",
	"CREATE TABLE more(n INTEGER);",
};

static char dir[] = "/tmp/husk-sql-XXXXXX"; /* a tmpfs of its own, made anew for each test */
static char path[64], filler[64];
static struct loop *l;
static struct sqlfile *f;
static struct err err;

static void open_it(void)
{
	assert_int_equal(loop_new(&l, &err), 0);
	assert_ok(sqlfile_open(l, path, steps, ARRAY_SIZE(steps), &f, &err), &err);
}

static void close_it(void)
{
	sqlfile_close(take_ptr(&f));
	loop_free(take_ptr(&l)); /* ends the test if a timer or descriptor is left */
}

static int mount_of(const char *size)
{
	return mount("tmpfs", dir, "tmpfs", 0, size);
}

static int setup(void **state)
{
	err = (struct err){ 0 };
	if (mount_of("size=128m") < 0)
		return -1;
	open_it();
	return 0;
}

static int teardown(void **state)
{
	if (f)
		close_it();
	return umount2(dir, MNT_DETACH);
}

/* ---- help ---- */

struct answer {
	int code;
	struct err err;
};

static void on_answer(void *arg, int code, const struct err *e)
{
	struct answer *a = arg;

	a->code = code;
	a->err = *e;
}

static int wait_for(struct answer *a)
{
	while (a->code == NOT_YET)
		assert_true(loop_once(l, 10000) >= 0);
	return a->code;
}

static struct sql_tx *insert(int64_t n, const void *bytes, size_t len)
{
	const struct sql_value v[] = { sql_int(n), sql_text("name"), sql_blob(bytes, len) };
	struct sql_tx *t = sql_tx_new();

	assert_non_null(t);
	assert_int_equal(sql_tx_add(t, "INSERT INTO t VALUES(?1, ?2, ?3)", v, 3), 0);
	return t;
}

static int write_row(int64_t n, const void *bytes, size_t len)
{
	struct answer a = { .code = NOT_YET };

	sqlfile_write(f, insert(n, bytes, len), on_answer, &a);
	assert_int_equal(a.code, NOT_YET); /* never from inside */
	return wait_for(&a);
}

static int wait_written(void)
{
	struct answer a = { .code = NOT_YET };

	assert_ok(sqlfile_written(f, on_answer, &a, &err), &err);
	assert_int_equal(a.code, NOT_YET);
	return wait_for(&a);
}

/* The file as another program sees it. */
static int64_t number(const char *sql)
{
	sqlite3_stmt *st = NULL;
	sqlite3 *db;
	int64_t n;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

/* ---- what is written ---- */

static int last;
static pthread_t loops_thread;

static void on_one_of_many(void *arg, int code, const struct err *e)
{
	assert_int_equal(code, 0);
	assert_int_equal((intptr_t)arg, ++last);
	assert_true(pthread_equal(pthread_self(), loops_thread));
}

/* All that depends on the one before; answers come in the same order, on the loop's thread. */
static void order(void **state)
{
	static const char *const sql[] = {
		"INSERT INTO t VALUES(1, 'a', NULL)",
		"UPDATE t SET name=name||'b' WHERE n=1",
		"DELETE FROM t WHERE n=1 AND name='ab'",
	};

	last = 0;
	loops_thread = pthread_self();
	for (int k = 0; k < MANY; k++) {
		for (size_t i = 0; i < ARRAY_SIZE(sql); i++) {
			struct sql_tx *t = sql_tx_new();

			assert_non_null(t);
			assert_int_equal(sql_tx_add(t, sql[i], NULL, 0), 0);
			sqlfile_write(f, t, on_one_of_many,
				      (void *)(intptr_t)(k * (int)ARRAY_SIZE(sql) + (int)i + 1));
		}
	}
	assert_int_equal(wait_written(), 0);
	assert_int_equal(last, MANY * (int)ARRAY_SIZE(sql));
	assert_int_equal(number("SELECT COUNT(*) FROM t"), 0);
}

/* Values are copied, of all kinds; a transaction is all or nothing. */
static void values(void **state)
{
	char bytes[] = { 'x', 0, 'y' }, text[] = "text";
	const struct sql_value v[] = { sql_int(INT64_MIN), sql_text(text), sql_blob(bytes, 3) };
	const struct sql_value w[] = { sql_int(7), sql_text(NULL), sql_blob(NULL, 0) };
	struct answer a = { .code = NOT_YET };
	struct sql_tx *t = sql_tx_new();

	assert_int_equal(sql_tx_add(t, "INSERT INTO t VALUES(?1, ?2, ?3)", v, 3), 0);
	assert_int_equal(sql_tx_add(t, "INSERT INTO t VALUES(?1, ?2, ?3)", w, 3), 0);
	memset(bytes, '-', sizeof(bytes));
	memset(text, '-', 4);
	sqlfile_write(f, t, on_answer, &a);
	assert_int_equal(wait_for(&a), 0);
	assert_int_equal(number("SELECT n FROM t WHERE name='text' AND bytes=x'780079'"),
			 INT64_MIN);
	assert_int_equal(number("SELECT n FROM t WHERE name IS NULL AND length(bytes)=0"), 7);
	/* The second of two is refused: neither is there, and what follows is. */
	t = insert(8, "", 0);
	assert_int_equal(sql_tx_add(t, "INSERT INTO t(n) VALUES(?1)", w, 1), 0);
	a.code = NOT_YET;
	sqlfile_write(f, t, on_answer, &a);
	assert_int_equal(write_row(9, "", 0), 0);
	assert_int_equal(a.code, -EEXIST);
	assert_text(a.err.msg, path);
	assert_int_equal(sqlfile_failing(f, &err), 0);
	assert_int_equal(number("SELECT COUNT(*) FROM t WHERE n=8"), 0);
	assert_int_equal(number("SELECT COUNT(*) FROM t"), 3);
}

static void syncing(void **state)
{
	struct answer a = { .code = NOT_YET };
	struct sql_tx *t = insert(1, "", 0);

	assert_int_equal(sql_tx_sync_dir(t, dir), 0);
	sqlfile_write(f, t, NULL, NULL);
	assert_ok(sqlfile_sync(f, on_answer, &a, &err), &err);
	assert_int_equal(wait_for(&a), 0);
	assert_int_equal(number("SELECT n FROM t"), 1);
}

/* ---- a disk that is no good ---- */

/* Another program has the file for as long as it wants: the thread waits, the loop does not. */
static void held(void **state)
{
	struct answer a = { .code = NOT_YET };
	uint64_t start = now_mono_ns();
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	sqlfile_write(f, insert(1, "", 0), on_answer, &a);
	for (int k = 0; k < 10; k++)
		assert_true(loop_once(l, 10) >= 0);
	assert_int_equal(a.code, NOT_YET);
	assert_true(now_mono_ns() - start < NS_PER_S);
	assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(wait_for(&a), 0);
	sqlite3_close(db);
}

static void fill_disk(void)
{
	static char zero[64 * KIB];
	int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND, 0600);

	assert_true(fd >= 0);
	for (size_t n = sizeof(zero); n; n /= 2)
		while (write(fd, zero, n) == (ssize_t)n)
			;
	(void)close(fd);
}

static void empty_disk(void)
{
	assert_int_equal(unlink(filler), 0);
}

/* On a disk too small for a reserve: the error arrives, order is kept, and all of it is written
 * when there is room again, without being asked for. */
static void full_disk(void **state)
{
	static char big[256 * KIB];
	struct answer first = { .code = NOT_YET }, second = { .code = NOT_YET };
	const struct sql_value v[] = { sql_int(1) };
	struct sql_tx *t = sql_tx_new();

	close_it();
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
	assert_int_equal(mount_of("size=4m"), 0);
	open_it();
	assert_int_equal(write_row(0, "", 0), 0);
	fill_disk();
	sqlfile_write(f, insert(1, big, sizeof(big)), on_answer, &first);
	assert_int_equal(sql_tx_add(t, "UPDATE t SET name='renamed' WHERE n=?1", v, 1), 0);
	sqlfile_write(f, t, on_answer, &second);
	assert_int_equal(wait_for(&first), -ENOSPC);
	assert_int_equal(wait_for(&second), -ENOSPC);
	assert_int_equal(wait_written(), -ENOSPC);
	assert_int_equal(sqlfile_failing(f, &err), -ENOSPC);
	assert_text(err.msg, path);
	assert_int_equal(number("SELECT COUNT(*) FROM t"), 1);
	empty_disk();
	while (sqlfile_failing(f, NULL) < 0)
		assert_true(loop_once(l, 10000) >= 0);
	assert_int_equal(number("SELECT n FROM t WHERE name='renamed'"), 1);
	/* What could not be written until the end has one more try there. */
	fill_disk();
	assert_int_equal(write_row(2, big, sizeof(big)), -ENOSPC);
	empty_disk();
	close_it();
	assert_int_equal(number("SELECT COUNT(*) FROM t WHERE n=2"), 1);
}

/* What is on a full disk can be removed, also by the next process. */
static void reserve(void **state)
{
	char wal[80];
	struct stat st;

	(void)snprintf(wal, sizeof(wal), "%s-wal", path);
	for (int k = 0; k < 20; k++)
		assert_int_equal(write_row(k, "", 0), 0);
	for (int round = 0; round < 2; round++) {
		const struct sql_value v[] = { sql_int(round) };
		struct answer a = { .code = NOT_YET };
		struct sql_tx *t = sql_tx_new();

		assert_int_equal(stat(wal, &st), 0);
		assert_true((uint64_t)st.st_blocks * 512 >= DB_WAL_RESERVE);
		fill_disk();
		assert_int_equal(sql_tx_add(t, "DELETE FROM t WHERE n=?1", v, 1), 0);
		sqlfile_write(f, t, on_answer, &a);
		assert_int_equal(wait_for(&a), 0);
		close_it();
		open_it();
		empty_disk();
	}
	assert_int_equal(number("SELECT COUNT(*) FROM t"), 18);
}

/* ---- the end ---- */

static void on_one_more(void *arg, int code, const struct err *e)
{
	assert_int_equal(code, 0);
	if (++last < MANY)
		return;
	/* From the last answer: that one is written, too. */
	sqlfile_write(f, insert(100000, "", 0), NULL, NULL);
}

static void drains(void **state)
{
	last = 0;
	for (int k = 0; k < MANY; k++)
		sqlfile_write(f, insert(k, "", 0), on_one_more, NULL);
	sqlfile_close(f);
	f = NULL;
	loop_free(take_ptr(&l));
	assert_int_equal(last, MANY);
	assert_int_equal(number("SELECT COUNT(*) FROM t"), MANY + 1);
}

static void on_tell(void *arg, int code, const struct err *e)
{
	int n = ++last;

	if (code < 0 || write(*(int *)arg, &n, sizeof(n)) != sizeof(n))
		_exit(1);
}

/* Whatever was answered is there, and of the rest the beginning. */
static void kill_nine(void **state)
{
	close_it();
	for (int round = 0; round < 10; round++) {
		int told = 0, n, pipefd[2];
		int64_t base, count;
		pid_t pid;

		base = round == 0 ? 0 : number("SELECT MAX(n) FROM t");
		assert_int_equal(pipe(pipefd), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			open_it();
			last = 0;
			for (int64_t k = 1;; k++) {
				sqlfile_write(f, insert(base + k, &k, sizeof(k)), on_tell,
					      &pipefd[1]);
				if (k % 8 == 0)
					(void)!loop_once(l, 10);
			}
		}
		(void)close(pipefd[1]);
		for (int k = 0; k < 1 + 60 * round; k++) {
			assert_int_equal(read(pipefd[0], &n, sizeof(n)), sizeof(n));
			told = n;
		}
		(void)kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		(void)close(pipefd[0]);
		count = number("SELECT COUNT(*) FROM t");
		assert_true(count >= base + told);
		assert_int_equal(number("SELECT MAX(n) FROM t"), count);
		open_it();
		assert_int_equal(wait_written(), 0);
		close_it();
	}
}

/* ---- opening ---- */

static void opening(void **state)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(number("PRAGMA user_version"), 2);
	assert_int_equal(write_row(1, "", 0), 0);
	close_it();
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(sqlfile_open(l, path, steps, 1, &f, &err), -ENOTSUP);
	assert_text(err.msg, "newer version of huskd");
	assert_text(err.msg, path);
	/* an older one, with a row */
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
	assert_int_equal(mount_of("size=128m"), 0);
	assert_ok(sqlfile_open(l, path, steps, 1, &f, &err), &err);
	assert_int_equal(write_row(5, "", 0), 0);
	close_it();
	open_it();
	assert_int_equal(number("SELECT n FROM t"), 5);
	assert_int_equal(number("SELECT COUNT(*) FROM more"), 0);
}

static void no_database(void **state)
{
	struct sqlfile *other;
	char junk[4096], name[80];

	(void)snprintf(name, sizeof(name), "%s/junk.db", dir);
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(write_file_atomic(name, junk, sizeof(junk), 0600, false, NULL), 0);
	assert_int_equal(sqlfile_open(l, name, steps, 2, &other, &err), -EPROTO);
	assert_text(err.msg, name);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(symlink(path, name), 0);
	assert_int_equal(sqlfile_open(l, name, steps, 2, &other, &err), -ELOOP);
}

static int group_setup(void **state)
{
	log_init("test", STDERR_FILENO, LOG_ERROR + 1, false);
	if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir)) {
		print_error("a mount namespace: %s\n", strerror(errno));
		return -1;
	}
	(void)snprintf(path, sizeof(path), "%s/a.db", dir);
	(void)snprintf(filler, sizeof(filler), "%s/filler", dir);
	return 0;
}

static int group_teardown(void **state)
{
	return rmdir(dir);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(order),   T(values), T(syncing),   T(held),	 T(full_disk),
		T(reserve), T(drains), T(kill_nine), T(opening), T(no_database),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
