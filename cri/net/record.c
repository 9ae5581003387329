#include "cri/net/record.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/net/json.h"
#include "cri/net/plugin.h"

#define RECORD_VERSION 1
#define LOCK_AFTER_KILL_MS 1000
#define LOCK_PAUSE_MAX_NS (20 * NS_PER_MS)

void record_fini(struct record *rec)
{
	free(rec->id);
	free(rec->ifname);
	free(rec->netns);
	free(rec->args);
	json_decref(rec->list);
	json_decref(rec->caps);
	json_decref(rec->result);
	*rec = (struct record){ 0 };
}

bool record_id_valid(const char *id)
{
	if (!id || !isalnum((unsigned char)id[0]) || strlen(id) > NET_ID_MAX)
		return false;
	for (; *id; id++)
		if (!isalnum((unsigned char)*id) && !strchr("._-", *id))
			return false;
	return true;
}

/* ---- writing ---- */

int record_text(const struct record *rec, char **ret, struct err *err)
{
	cleanup_json json_t *j =
		json_pack("{s:i, s:s, s:s, s:s, s:s, s:O, s:O}", "version", RECORD_VERSION, "id",
			  rec->id, "ifname", rec->ifname, "netns", rec->netns, "args", rec->args,
			  "list", rec->list, "capabilities", rec->caps);

	*ret = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
	if (!*ret)
		return err_nomem(err);
	if (strlen(*ret) <= NET_RECORD_MAX)
		return 0;
	free(*ret);
	return err_set(err, -E2BIG, "what is to be kept of the pod's network is too long");
}

int record_write(const char *dir, const char *id, const char *text, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s.json", dir, id);

	if (!path)
		return err_nomem(err);
	return write_file_atomic(path, text, strlen(text), 0600, true, err);
}

int record_write_result(const char *dir, const struct record *rec, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s.result", dir, rec->id);
	cleanup_json json_t *j =
		json_pack("{s:b, s:O}", "complete", rec->complete, "result", rec->result);
	cleanup_free char *text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;

	if (!path || !text)
		return err_nomem(err);
	return write_file_atomic(path, text, strlen(text), 0600, false, err);
}

/* ---- reading ---- */

static int read_json(const char *dir, const char *id, const char *ending, json_t **ret,
		     struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s.%s", dir, id, ending);
	cleanup_free char *text = NULL;
	size_t len;
	int r;

	if (!path)
		return err_nomem(err);
	r = read_file(path, NET_RECORD_MAX, &text, &len, err);
	if (r == 0)
		r = net_json_parse_own(text, len, ret, err);
	return r;
}

static int take_str(const json_t *j, const char *key, char **ret)
{
	const char *s = net_json_str(j, key);

	if (!s)
		return -EPROTO;
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

static void read_result(const char *dir, struct record *rec)
{
	cleanup_json json_t *j = NULL;
	struct err err = { 0 };
	json_t *result;
	int r = read_json(dir, rec->id, "result", &j, &err);

	result = json_object_get(j, "result");
	if (r == 0 && json_is_object(result)) {
		rec->result = json_incref(result);
		rec->complete = json_is_true(json_object_get(j, "complete"));
	} else if (r != -ENOENT) {
		log_warn("the result of a pod's network is damaged", "pod", rec->id, "err",
			 err_text(&err));
	}
}

int record_read(const char *dir, const char *id, struct record *ret, struct err *err)
{
	cleanup_json json_t *j = NULL;
	struct record rec = { 0 };
	int r = read_json(dir, id, "json", &j, err);

	if (r < 0)
		return r;
	if (json_integer_value(json_object_get(j, "version")) != RECORD_VERSION)
		return err_set(err, -ENOTSUP, "%s/%s.json is of another version", dir, id);
	r = take_str(j, "id", &rec.id);
	if (r == 0)
		r = take_str(j, "ifname", &rec.ifname);
	if (r == 0)
		r = take_str(j, "netns", &rec.netns);
	if (r == 0)
		r = take_str(j, "args", &rec.args);
	rec.list = json_incref(json_object_get(j, "list"));
	rec.caps = json_incref(json_object_get(j, "capabilities"));
	if (r == 0 &&
	    (!str_eq(rec.id, id) || !json_is_object(rec.list) || !json_is_object(rec.caps)))
		r = -EPROTO;
	if (r < 0) {
		record_fini(&rec);
		return err_errno(err, r, "%s/%s.json", dir, id);
	}
	read_result(dir, &rec);
	*ret = rec;
	return 0;
}

/* ---- removing ---- */

int record_remove(const char *dir, const char *id, struct err *err)
{
	static const char *const endings[] = { "result", "lock", "json" };

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		cleanup_free char *path = str_fmt("%s/%s.%s", dir, id, endings[i]);

		if (!path)
			return err_nomem(err);
		if (unlink(path) < 0 && errno != ENOENT)
			return err_errno(err, -errno, "remove %s", path);
	}
	return 0;
}

/* ID of ID.ending; false where it has another ending. */
static bool split(const char *name, const char *ending, char id[NET_ID_MAX + 1])
{
	size_t n = strlen(name), e = strlen(ending);

	if (!str_ends(name, ending) || n - e > NET_ID_MAX)
		return false;
	memcpy(id, name, n - e);
	id[n - e] = '\0';
	return record_id_valid(id);
}

int record_scan(const char *dir, void (*fn)(void *arg, const char *id), void *arg, struct err *err)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return err_errno(err, -errno, "read %s", dir);
	while ((e = readdir(d))) {
		cleanup_free char *request = NULL;
		char id[NET_ID_MAX + 1];

		if (split(e->d_name, ".json", id)) {
			fn(arg, id);
			continue;
		}
		/* Of write_file_atomic, or of a removal that was interrupted. */
		if (split(e->d_name, ".result", id) || split(e->d_name, ".lock", id))
			request = str_fmt("%s/%s.json", dir, id);
		if (strstr(e->d_name, ".tmp.") || (request && access(request, F_OK) < 0))
			(void)unlinkat(dirfd(d), e->d_name, 0);
	}
	(void)closedir(d);
	return 0;
}

/* ---- the lock ---- */

static bool holds(const char *pid, const char *lock)
{
	cleanup_free char *link = str_fmt("/proc/%s/fd/%d", pid, PLUGIN_LOCK_FD);
	char target[PATH_MAX];
	ssize_t n = link ? readlink(link, target, sizeof(target) - 1) : -1;

	if (n < 0)
		return false;
	target[n] = '\0';
	return str_eq(target, lock);
}

/* Plug-ins, and what they started, that an earlier huskd cannot kill any more. */
static void kill_holders(int fd)
{
	cleanup_free char *link = str_fmt("/proc/self/fd/%d", fd);
	char lock[PATH_MAX]; /* as the kernel calls it: a directory on the way may be a symlink */
	ssize_t n = link ? readlink(link, lock, sizeof(lock) - 1) : -1;
	DIR *d = n > 0 ? opendir("/proc") : NULL;
	struct dirent *e;
	int64_t pid;

	if (!d)
		return;
	lock[n] = '\0';
	while ((e = readdir(d))) {
		if (str_to_i64(e->d_name, 2, INT32_MAX, &pid) < 0 || pid == getpid() ||
		    !holds(e->d_name, lock))
			continue;
		log_warn("a plug-in that an earlier huskd started does not end and is killed",
			 "pid", e->d_name);
		(void)kill((pid_t)pid, SIGKILL);
	}
	(void)closedir(d);
}

/* Not a blocking flock, which nothing but a signal would end. */
static int lock_wait(int fd, uint64_t wait_ms, const atomic_bool *hurry)
{
	uint64_t end = now_mono_ns() + wait_ms * NS_PER_MS, pause = NS_PER_MS;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		struct timespec ts = { .tv_nsec = (long)pause };

		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (now_mono_ns() >= end || (hurry && atomic_load(hurry)))
			return -EBUSY;
		(void)nanosleep(&ts, NULL);
		pause = MIN_OF(pause * 2, (uint64_t)LOCK_PAUSE_MAX_NS);
	}
	return 0;
}

int record_lock(const char *dir, const char *id, uint64_t wait_ms, const atomic_bool *hurry,
		int *ret_fd, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s.lock", dir, id);
	cleanup_fd int fd = -1;
	int r;

	if (!path)
		return err_nomem(err);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "%s", path);
	r = lock_wait(fd, wait_ms, hurry);
	if (r == -EBUSY && !(hurry && atomic_load(hurry))) {
		kill_holders(fd);
		r = lock_wait(fd, LOCK_AFTER_KILL_MS, hurry);
	}
	if (r == -EBUSY)
		return err_set(err, r, "a plug-in is still at work on this pod");
	if (r < 0)
		return err_errno(err, r, "lock %s", path);
	*ret_fd = take_fd(&fd);
	return 0;
}
