#include "test/lib/shim/pod_fixture.h"

#include <errno.h>

#include "base/util.h"
#include "shim/pod/create.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/tmpdir.h"
#include "test/lib/unit.h"

#define EVERYTHING 400 /* enough rounds of the loop for a few requests and their answers */

struct containers all;
char *scratch;
static char *layer;
char heard[2000];

static void hear(const char *what, const char *id, const char *exec_id)
{
	size_t n = strlen(heard);

	(void)snprintf(heard + n, sizeof(heard) - n, "%s%s(%s%s%s)", n ? " " : "", what, id,
		       str_empty(exec_id) ? "" : ",", exec_id ? exec_id : "");
}

static void owner_created(const struct container *c, void *arg)
{
	hear("created", c->id, NULL);
}

static void owner_exec_added(const struct proc *p, void *arg)
{
	hear("added", p->container, p->exec_id);
}

static void owner_started(const struct proc *p, void *arg)
{
	hear("started", p->container, p->exec_id);
}

static void owner_exited(const struct proc *p, void *arg)
{
	assert_int_equal(p->state, PROC_STOPPED);
	hear("exited", p->container, p->exec_id);
}

static void owner_oom(const struct container *c, void *arg)
{
	hear("oom", c->id, NULL);
}

static void owner_deleted(const struct container *c, void *arg)
{
	hear("deleted", c->id, NULL);
}

static void owner_output_lost(const struct proc *p, const struct err *err, void *arg)
{
	hear("lost", p->container, p->exec_id);
}

static const struct container_ops container_ops = {
	.created = owner_created,
	.exec_added = owner_exec_added,
	.started = owner_started,
	.exited = owner_exited,
	.oom = owner_oom,
	.deleted = owner_deleted,
	.output_lost = owner_output_lost,
};

const char *trouble_due;

/* The shim's part between the two. */
static void sandbox_exited(const Agent__ExitEvent *ev, void *arg)
{
	containers_exited(&all, ev);
}

static void sandbox_oom(const char *id, void *arg)
{
	containers_oom(&all, id);
}

static void sandbox_died(uint32_t status, const char *why, void *arg)
{
	containers_died(&all, status, why);
}

static void sandbox_nothing(void *arg)
{
}

static void sandbox_disk_room(const Vmm__DiskRoom *room, void *arg)
{
}

static void sandbox_trouble(const char *what, const struct err *err, void *arg)
{
	if (!trouble_due || !str_starts(what, trouble_due))
		fail_msg("%s", what);
}

static const struct sandbox_ops sandbox_ops = {
	.exited = sandbox_exited,
	.oom = sandbox_oom,
	.ready = sandbox_nothing,
	.died = sandbox_died,
	.ended = sandbox_nothing,
	.pids_changed = sandbox_nothing,
	.disk_room = sandbox_disk_room,
	.trouble = sandbox_trouble,
};

/* ---- a request and its one answer ---- */

struct answer a, w;

static void answer_take(struct answer *to, int code, const struct err *err)
{
	to->n++;
	to->code = code;
	if (err)
		to->err = *err;
}

static void answer_on_container(const struct container *c, int code, const struct err *err,
				void *arg)
{
	struct answer *to = arg;

	answer_take(to, code, err);
	if (code == 0)
		to->exit_status = c->init.exit_status;
}

static void answer_on_start(const struct proc *p, int code, const struct err *err,
			    const Shim__StartError *detail, void *arg)
{
	struct answer *to = arg;

	answer_take(to, code, err);
	to->exit_code = detail ? detail->exit_code : 0;
}

void answer_on_wait(void *arg, int code, const struct err *err)
{
	answer_take(arg, code, err);
}

void turn(void)
{
	for (int i = 0; i < EVERYTHING; i++)
		assert_true(loop_once(loop, 0) >= 0);
}

bool answered(struct answer *to, uint64_t ms)
{
	uint64_t end = now_mono_ns() + ms * NS_PER_MS;

	while (!to->n && now_mono_ns() < end)
		assert_true(loop_once(loop, 10) >= 0);
	return to->n == 1;
}

/* ---- set-up ---- */

static void write_text(const char *path, const char *text)
{
	struct err err = { 0 };

	assert_ok(write_file_atomic(path, text, strlen(text), 0600, false, &err), &err);
}

int pod_set_up_files(void **state)
{
	if (tmpdir_make(state) != 0)
		return -1;
	layer = in_tmpdir("layer");
	scratch = in_tmpdir("scratch");
	write_text(layer, "x");
	write_text(scratch, "x");
	return 0;
}

int pod_tear_down_files(void **state)
{
	free(layer);
	free(scratch);
	return tmpdir_remove(state);
}

int pod_set_up(void **state)
{
	struct err err = { 0 };

	heard[0] = 0;
	a = w = (struct answer){ 0 };
	sandbox_fixture_begin(&sandbox_ops);
	containers_init(&all, loop, &sb, &container_ops, NULL);
	assert_ok(sandbox_prepare(&sb, NULL, &err), &err);
	assert_ok(sandbox_start(&sb, &err), &err);
	turn();
	assert_int_equal(sb.state, SB_READY);
	fake.asked[0] = 0;
	return 0;
}

int pod_tear_down(void **state)
{
	sandbox_fini(&sb);
	containers_fini(&all);
	assert_int_equal(all.n, 0);
	sandbox_fixture_end();
	return 0;
}

/* ---- the requests, short ---- */

void create_as(const char *id, const struct how *how)
{
	static const char *const ro[] = { "ro" }, *const rw[] = { "rw" };
	TaskV2__CreateTaskRequest req = TASK_V2__CREATE_TASK_REQUEST__INIT;
	cleanup_free char *bundle = in_tmpdir(id), *config = str_fmt("%s/config.json", bundle);
	cleanup_free char *text =
		str_fmt("{\"process\":{\"args\":[\"prog\"],\"cwd\":\"/\",\"oomScoreAdj\":%d},"
			"\"linux\":{\"namespaces\":[{\"type\":\"mount\"}%s]}}",
			how->oom_score, how->shared_pids ? "" : ",{\"type\":\"pid\"}");
	Types__Mount m[3], *list[3] = { &m[0], &m[1], &m[2] };
	struct err err = { 0 };
	size_t n = 0;

	assert_ok(mkdir_p(bundle, 0700, &err), &err);
	write_text(config, text);
	for (size_t i = 0; i < 3; i++)
		types__mount__init(&m[i]);
	m[n].type = (char *)"ext4";
	m[n].source = layer;
	m[n].options = (char **)ro;
	m[n++].n_options = 1;
	if (how->scratch) {
		m[n].type = (char *)"ext4";
		m[n].source = (char *)how->scratch;
		m[n].options = (char **)rw;
		m[n++].n_options = 1;
	}
	m[n++].type = (char *)"overlay";
	req.id = (char *)id;
	req.bundle = bundle;
	req.rootfs = list;
	req.n_rootfs = n;
	req.stdout = req.stderr = (char *)how->out;
	a = (struct answer){ 0 };
	container_create(&all, &req, answer_on_container, &a);
}

const struct how plain = { .out = "" };

void create_ok(const char *id, const struct how *how)
{
	create_as(id, how);
	turn();
	assert_int_equal(a.n, 1);
	assert_ok(a.code, &a.err);
}

struct proc *proc_of(const char *id, const char *exec_id)
{
	struct err err = { 0 };
	struct proc *p = container_proc(&all, id, exec_id, &err);

	assert_non_null(p);
	return p;
}

void start_proc(const char *id, const char *exec_id)
{
	a = (struct answer){ 0 };
	container_start(proc_of(id, exec_id), answer_on_start, &a);
	turn();
}

void start_ok(const char *id, const char *exec_id)
{
	start_proc(id, exec_id);
	assert_int_equal(a.n, 1);
	assert_ok(a.code, &a.err);
}

int add_exec(const char *id, const char *exec_id)
{
	static char spec[] = "{\"args\":[\"more\"],\"cwd\":\"/\"}";
	TaskV2__ExecProcessRequest req = TASK_V2__EXEC_PROCESS_REQUEST__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	struct err err = { 0 };

	any.type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Process";
	any.value.data = (uint8_t *)spec;
	any.value.len = strlen(spec);
	req.exec_id = (char *)exec_id;
	req.spec = &any;
	return container_add_exec(container_of_proc(proc_of(id, "")), &req, &err);
}

void delete_container(const char *id)
{
	a = (struct answer){ 0 };
	container_delete(container_of_proc(proc_of(id, "")), answer_on_container, &a);
	turn();
}

void delete_ok(const char *id)
{
	delete_container(id);
	assert_int_equal(a.n, 1);
	assert_ok(a.code, &a.err);
	assert_null(container_find(&all, id));
}
