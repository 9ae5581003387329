/* Pods and containers in memory and database: names, ids, and what is left after a kill -9. */
#include "test/lib/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "cri/store/state.h"
#include "cri/store/statedb.h"

struct fixture {
	char dir[64];
	char path[96];
	struct loop *loop;
	struct statedb *db;
	struct state s;
	struct err err;
};

/* A loop of its own for each: a test may fork, and a child's epoll would be its parent's. */
static void open_again(struct fixture *f)
{
	assert_int_equal(loop_new(&f->loop, &f->err), 0);
	assert_int_equal(statedb_open(f->loop, f->path, &f->db, &f->err), 0);
	state_init(&f->s, f->db, NULL);
	assert_int_equal(state_load(&f->s, &f->err), 0);
}

static void close_all(struct fixture *f)
{
	state_fini(&f->s);
	statedb_close(take_ptr(&f->db));
	loop_free(take_ptr(&f->loop));
}

#define NOT_YET 1

struct answer {
	int code;
	struct err err;
};

static void on_answer(void *arg, int code, const struct err *err)
{
	struct answer *a = arg;

	a->code = code;
	a->err = *err;
}

static int wait_for(struct fixture *f, struct answer *a)
{
	while (a->code == NOT_YET)
		assert_true(loop_once(f->loop, 10000) >= 0);
	f->err = a->err;
	return a->code;
}

static int commit_pod(struct fixture *f, struct pod *p)
{
	struct answer a = { .code = NOT_YET };

	assert_int_equal(state_commit_pod(&f->s, p, POD_READY, on_answer, &a, &f->err), 0);
	assert_int_equal(a.code, NOT_YET); /* never from inside */
	return wait_for(f, &a);
}

static int commit_container(struct fixture *f, struct container *c)
{
	struct answer a = { .code = NOT_YET };

	assert_int_equal(
		state_commit_container(&f->s, c, CONTAINER_CREATED, on_answer, &a, &f->err), 0);
	assert_int_equal(a.code, NOT_YET);
	return wait_for(f, &a);
}

static void wait_written(struct fixture *f)
{
	struct answer a = { .code = NOT_YET };

	assert_int_equal(state_written(&f->s, on_answer, &a, &f->err), 0);
	assert_int_equal(wait_for(f, &a), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_init("test", STDERR_FILENO, LOG_ERROR + 1, false);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/husk-state-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->path, sizeof(f->path), "%s/husk.db", f->dir);
	open_again(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_all(f);
	(void)!remove_tree(f->dir, NULL);
	free(f);
	return 0;
}

static int try_pod(struct fixture *f, const char *name, unsigned attempt, struct pod **ret)
{
	Cri__PodSandboxMetadata m = CRI__POD_SANDBOX_METADATA__INIT;
	Cri__PodSandboxConfig c = CRI__POD_SANDBOX_CONFIG__INIT, *copy;
	Cri__PodSandboxConfig__LabelsEntry l = CRI__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT;
	Cri__PodSandboxConfig__LabelsEntry *labels[] = { &l };
	uint8_t buf[1024];

	m.name = (char *)name;
	m.namespace_ = (char *)"ns";
	m.uid = (char *)"u";
	m.attempt = attempt;
	c.metadata = &m;
	l.key = (char *)"app";
	l.value = (char *)name;
	c.n_labels = 1;
	c.labels = labels;
	size_t n = cri__pod_sandbox_config__pack(&c, buf);
	copy = cri__pod_sandbox_config__unpack(NULL, n, buf);
	int r = state_add_pod(&f->s, copy, "husk", ret, NULL, &f->err);
	if (r < 0)
		cri__pod_sandbox_config__free_unpacked(copy, NULL);
	return r;
}

static int try_container(struct fixture *f, struct pod *p, const char *name, struct container **ret)
{
	Cri__ContainerMetadata m = CRI__CONTAINER_METADATA__INIT;
	Cri__ImageSpec spec = CRI__IMAGE_SPEC__INIT;
	Cri__ContainerConfig c = CRI__CONTAINER_CONFIG__INIT, *copy;
	const struct state_image image = { "sha256:abc", "reg/img:latest", "sha256:abc" };
	uint8_t buf[1024];

	m.name = (char *)name;
	spec.image = (char *)"img";
	c.metadata = &m;
	c.image = &spec;
	size_t n = cri__container_config__pack(&c, buf);
	copy = cri__container_config__unpack(NULL, n, buf);
	int r = state_add_container(&f->s, p, copy, &image, ret, &f->err);
	if (r < 0)
		cri__container_config__free_unpacked(copy, NULL);
	return r;
}

static struct pod *add_pod(struct fixture *f, const char *name)
{
	struct pod *p;

	assert_int_equal(try_pod(f, name, 0, &p), 0);
	assert_int_equal(commit_pod(f, p), 0);
	assert_int_equal(p->state, POD_CREATING); /* it is the owner's to make it true */
	pod_state_set(p, POD_READY);
	return p;
}

static struct container *add_container(struct fixture *f, struct pod *p, const char *name)
{
	struct container *c;

	assert_int_equal(try_container(f, p, name, &c), 0);
	assert_int_equal(commit_container(f, c), 0);
	assert_int_equal(c->state, CONTAINER_CREATING);
	container_state_set(c, CONTAINER_CREATED);
	return c;
}

static void names(void **state)
{
	struct fixture *f = *state;
	struct pod *p = add_pod(f, "a"), *q;
	struct container *c = add_container(f, p, "c"), *other;

	assert_int_equal(try_pod(f, "a", 0, &q), -EEXIST);
	assert_non_null(strstr(f->err.msg, p->id));
	assert_int_equal(try_pod(f, "a", 1, &q), 0);
	assert_int_equal(try_container(f, p, "c", &other), -EEXIST);
	assert_non_null(strstr(f->err.msg, c->id));
	pod_state_set(q, POD_READY);
	assert_int_equal(try_container(f, q, "c", &other), 0);
	state_remove_container(&f->s, c);
	assert_int_equal(try_container(f, p, "c", &other), 0);
	state_remove_pod(&f->s, p);
	assert_int_equal(try_pod(f, "a", 0, &q), 0);
}

static void ids(void **state)
{
	struct fixture *f = *state;
	struct pod *p = add_pod(f, "a"), *q = add_pod(f, "b"), *found;
	struct container *c = add_container(f, p, "c"), *cf;
	char prefix[16] = { 0 };

	memcpy(prefix, p->id, 13);
	/* Random ids share no 13 digits. */
	assert_int_equal(state_find_pod(&f->s, prefix, &found, &f->err), 0);
	assert_ptr_equal(found, p);
	assert_int_equal(state_find_pod(&f->s, q->id, &found, &f->err), 0);
	assert_ptr_equal(found, q);
	assert_int_equal(state_find_pod(&f->s, "", &found, &f->err), -EINVAL);
	assert_int_equal(state_find_pod(&f->s, c->id, &found, &f->err), -ENOENT);
	assert_int_equal(state_find_pod(&f->s, "x", &found, &f->err), -ENOENT);
	memset(q->id, 'f', OBJECT_ID_LEN);
	memset(p->id, 'f', OBJECT_ID_LEN - 1);
	p->id[OBJECT_ID_LEN - 1] = '0';
	assert_int_equal(state_find_pod(&f->s, "ff", &found, &f->err), -EINVAL);
	assert_int_equal(state_find_container(&f->s, c->id, &cf, &f->err), 0);
	assert_ptr_equal(cf, c);
	/* What is not created yet is not found. */
	assert_int_equal(try_container(f, p, "later", &c), 0);
	assert_int_equal(state_find_container(&f->s, c->id, &cf, &f->err), -ENOENT);
	assert_int_equal(try_pod(f, "later", 0, &p), 0);
	assert_int_equal(state_find_pod(&f->s, p->id, &found, &f->err), -ENOENT);
}

static void references(void **state)
{
	struct fixture *f = *state;
	struct pod *p = add_pod(f, "a");
	struct container *c = container_ref(add_container(f, p, "c"));

	state_remove_pod(&f->s, p);
	assert_int_equal(f->s.n_pods, 0);
	assert_true(c->removed);
	assert_true(c->pod->removed); /* still there: the container holds it */
	assert_string_equal(c->pod->config->metadata->name, "a");
	container_unref(c);
}

static void limits(void **state)
{
	struct fixture *f = *state;
	struct pod *p = add_pod(f, "a");
	struct container *c;
	char name[16];

	for (int i = 0; i < (int)POD_CONTAINERS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "c%d", i);
		assert_int_equal(try_container(f, p, name, &c), 0);
	}
	assert_int_equal(try_container(f, p, "one-more", &c), -ENOBUFS);
}

static void reopen(void **state)
{
	struct fixture *f = *state;
	struct pod *p = add_pod(f, "a");
	struct container *c = add_container(f, p, "c");
	char pod_id[65], id[65];

	add_pod(f, "b");
	free(p->address);
	p->address = strdup("unix:///x");
	assert_int_equal(state_save_pod(&f->s, p, NULL), 0);
	container_state_set(c, CONTAINER_EXITED);
	c->started_at = 5;
	c->finished_at = 6;
	c->exit_code = 137;
	free(c->reason);
	c->reason = strdup("OOMKilled");
	c->stop_signal = 3;
	c->stop_chosen = true;
	assert_int_equal(state_save_container(&f->s, c, NULL), 0);
	memcpy(pod_id, p->id, 65);
	memcpy(id, c->id, 65);
	close_all(f);
	open_again(f);
	assert_int_equal(f->s.n_pods, 2);
	assert_int_equal(state_find_pod(&f->s, pod_id, &p, NULL), 0);
	assert_int_equal(p->state, POD_READY);
	assert_string_equal(p->address, "unix:///x");
	assert_string_equal(p->handler, "husk");
	assert_string_equal(p->config->labels[0]->value, "a");
	assert_int_equal(state_find_container(&f->s, id, &c, NULL), 0);
	assert_int_equal(c->state, CONTAINER_EXITED);
	assert_int_equal(c->exit_code, 137);
	assert_int_equal(c->started_at, 5);
	assert_int_equal(c->finished_at, 6);
	assert_string_equal(c->reason, "OOMKilled");
	assert_string_equal(c->image_id, "sha256:abc");
	assert_string_equal(c->image_name, "reg/img:latest");
	assert_string_equal(c->image_ref, "sha256:abc");
	assert_int_equal(c->stop_signal, 3);
	assert_true(c->stop_chosen);
	state_remove_pod(&f->s, p);
	close_all(f);
	open_again(f);
	assert_int_equal(f->s.n_pods, 1);
}

/* What an answer came with 0 for is there after a kill -9 at any later moment. */
static void kill_nine(void **state)
{
	struct fixture *f = *state;
	int pipefd[2];
	char last[65] = "", id[65];

	close_all(f);
	for (int round = 0; round < 5; round++) {
		assert_int_equal(pipe(pipefd), 0);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			char name[32];
			open_again(f);
			for (int i = 0; i < 100000; i++) {
				(void)snprintf(name, sizeof(name), "r%d-%d", round, i);
				struct pod *p = add_pod(f, name);
				if (write(pipefd[1], p->id, 65) != 65)
					_exit(1);
				if (i % 3 == 0)
					add_container(f, p, "c");
			}
			_exit(0);
		}
		(void)close(pipefd[1]);
		for (int i = 0; i < 3 + 7 * round; i++)
			assert_int_equal(read(pipefd[0], id, 65), 65);
		memcpy(last, id, 65);
		(void)kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		(void)close(pipefd[0]);
		struct pod *p;
		open_again(f);
		assert_int_equal(state_find_pod(&f->s, last, &p, &f->err), 0);
		assert_int_equal(p->state, POD_READY);
		close_all(f);
	}
	open_again(f);
}

static void sql(struct fixture *f, const char *text)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void newer_schema(void **state)
{
	struct fixture *f = *state;
	struct statedb *db = NULL;

	sql(f, "PRAGMA user_version = 99");
	assert_int_equal(statedb_open(f->loop, f->path, &db, &f->err), -ENOTSUP);
	assert_non_null(strstr(f->err.msg, "newer version of huskd"));
	sql(f, "PRAGMA user_version = 1");
}

static void damaged(void **state)
{
	struct fixture *f = *state;
	char path[96];
	struct statedb *db = NULL;

	add_container(f, add_pod(f, "a"), "c");
	add_pod(f, "b");
	close_all(f);
	sql(f,
	    "UPDATE pods SET config = x'ffffff' WHERE id = (SELECT min(id) FROM "
	    "pods)");
	open_again(f);
	assert_int_equal(f->s.n_pods, 1);
	close_all(f);
	sql(f, "UPDATE pods SET state = 3");
	open_again(f);
	assert_int_equal(f->s.n_pods, 0);

	(void)snprintf(path, sizeof(path), "%s/junk.db", f->dir);
	char junk[4096];
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(write_file_atomic(path, junk, sizeof(junk), 0600, false, NULL), 0);
	assert_int_equal(statedb_open(f->loop, path, &db, &f->err), -EPROTO);
	assert_non_null(strstr(f->err.msg, path));
}

/* A state that cannot be written is not taken on. */
static void commit_fails(void **state)
{
	struct fixture *f = *state;
	struct container *c;
	struct pod *p;

	assert_int_equal(try_pod(f, "a", 0, &p), 0);
	assert_int_equal(try_container(f, p, "c", &c), 0);
	wait_written(f); /* a file without a journal would be made one */
	sql(f,
	    "CREATE TRIGGER no_pod BEFORE UPDATE ON pods BEGIN SELECT RAISE(ABORT, 'no'); END;"
	    "CREATE TRIGGER no_ct BEFORE UPDATE ON containers BEGIN SELECT RAISE(ABORT, 'no');"
	    " END;");
	assert_int_equal(commit_pod(f, p), -EEXIST);
	assert_int_equal(p->state, POD_CREATING);
	assert_int_equal(commit_container(f, c), -EEXIST);
	assert_int_equal(c->state, CONTAINER_CREATING);
}

static void private_file(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(names),     T(ids),	       T(references), T(limits),       T(reopen),
		T(kill_nine), T(newer_schema), T(damaged),    T(commit_fails), T(private_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
