#include "cri/net/confdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define WATCH_DIR                                                                                  \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB |        \
	 IN_DELETE_SELF | IN_MOVE_SELF)
#define WATCH_PARENT (IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)

/* ---- reading ---- */

/* As libcni: other names (.bak, .disabled, of editors) are none of ours. */
static int confdir_filter(const struct dirent *e)
{
	return e->d_name[0] != '.' &&
	       (str_ends(e->d_name, ".conflist") || str_ends(e->d_name, ".conf") ||
		str_ends(e->d_name, ".json"));
}

static int confdir_compare(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_conf(const char *path, struct net_list **ret, struct err *err)
{
	/* Not to wait where it is a FIFO. */
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	cleanup_free char *text = NULL;
	struct stat st;
	size_t len;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, -errno, "open it");
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "not a regular file");
	r = read_fd(fd, NET_CONF_MAX, &text, &len);
	if (r == -EFBIG)
		return err_set(err, r, "more than %zu KiB", NET_CONF_MAX / KIB);
	if (r < 0)
		return err_errno(err, r, "read it");
	return net_list_parse(text, len, !str_ends(path, ".conflist"), ret, err);
}

static void say_why(struct confdir *d, const char *name, const struct err *err)
{
	size_t n = strlen(d->why);

	(void)snprintf(d->why + n, sizeof(d->why) - n, "%s%s: %s", n ? "; " : "", name,
		       err_text(err));
	log_limited(LOG_WARN, "a network configuration is passed over", "dir", d->path, "file",
		    name, "err", err_text(err));
}

static void take_list(struct confdir *d, struct net_list *l, char *file)
{
	bool same = l && d->list ? json_equal(l->json, d->list->json) : !l && !d->list;

	net_list_free(d->list);
	free(d->file);
	d->list = l;
	d->file = file;
	if (same)
		return;
	if (l)
		log_info("network configuration", "file", file, "name", l->name, "cniVersion",
			 cni_version_name(l->version));
	if (d->on_change)
		d->on_change(d->arg);
}

/* The first that is valid, of n entries. */
static void pick(struct confdir *d, struct dirent **entries, int n)
{
	struct net_list *l = NULL;
	char *file = NULL;

	for (int i = 0; i < n && !l; i++) {
		struct err err = { 0 };

		free(file);
		file = str_fmt("%s/%s", d->path, entries[i]->d_name);
		if (i >= (int)NET_CONF_FILES_MAX) {
			(void)err_set(&err, -EFBIG, "more than %u files, the rest was not read",
				      NET_CONF_FILES_MAX);
			say_why(d, d->path, &err);
			break;
		}
		if (!file)
			(void)err_nomem(&err);
		if (!file || read_conf(file, &l, &err) < 0)
			say_why(d, entries[i]->d_name, &err);
	}
	if (!l) {
		free(file);
		file = NULL;
	}
	take_list(d, l, file);
}

static void confdir_load(struct confdir *d)
{
	struct dirent **entries = NULL;
	int n = scandir(d->path, &entries, confdir_filter, confdir_compare);

	d->why[0] = '\0';
	if (n <= 0)
		(void)snprintf(d->why, sizeof(d->why), "no network configuration in %s%s%s",
			       d->path, n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
	pick(d, entries, MAX_OF(n, 0));
	for (int i = 0; i < n; i++)
		free(entries[i]);
	free(entries);
}

/* ---- watching ---- */

/* The directory, or the nearest one above it that is there. */
static int watch_somewhere(struct confdir *d)
{
	cleanup_free char *path = strdup(d->path);
	int old = d->watch;

	if (!path)
		return -ENOMEM;
	d->watch = inotify_add_watch(d->inotify_fd, path, WATCH_DIR | IN_ONLYDIR);
	while (d->watch < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		char *slash = strrchr(path, '/');

		if (!slash)
			break;
		slash[slash == path] = '\0';
		d->watch = inotify_add_watch(d->inotify_fd, path, WATCH_PARENT | IN_ONLYDIR);
		if (slash == path)
			break;
	}
	if (old >= 0 && old != d->watch)
		(void)inotify_rm_watch(d->inotify_fd, old);
	return d->watch < 0 ? -errno : 0;
}

/* A directory that was made between the look and the watch above it is seen the next time round. */
static void confdir_look(struct confdir *d)
{
	int before, r;

	do {
		before = d->watch;
		r = watch_somewhere(d);
	} while (r == 0 && d->watch != before);
	if (r < 0)
		log_limited(LOG_WARN, "changes of the network configuration are not seen", "dir",
			    d->path, "err", strerror(-r));
	confdir_load(d);
}

static void confdir_on_settled(struct ev_timer *t)
{
	confdir_look(t->arg);
}

static void confdir_on_inotify(struct ev_io *io, uint32_t events)
{
	struct confdir *d = io->arg;
	char buf[16 * KIB];

	/* What happened does not matter: all is read anew. */
	if (read(d->inotify_fd, buf, sizeof(buf)) <= 0)
		return;
	if (d->settle.loop)
		return;
	if (ev_timer_add(d->loop, &d->settle, NET_CONF_SETTLE_MS * NS_PER_MS, confdir_on_settled,
			 d) < 0)
		confdir_look(d);
}

int confdir_open(struct confdir *d, struct loop *l, const char *path, void (*on_change)(void *),
		 void *arg, struct err *err)
{
	int r;

	*d = (struct confdir){ .loop = l, .inotify_fd = -1, .watch = -1 };
	d->path = strdup(path);
	if (!d->path)
		return err_nomem(err);
	d->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = d->inotify_fd < 0 ? -errno
			      : ev_io_add(l, &d->io, d->inotify_fd, EPOLLIN, confdir_on_inotify, d);
	if (r < 0) {
		confdir_close(d);
		return err_errno(err, r, "watch %s", path);
	}
	confdir_look(d);
	d->on_change = on_change;
	d->arg = arg;
	return 0;
}

void confdir_close(struct confdir *d)
{
	if (!d->path)
		return;
	ev_io_del(&d->io);
	ev_timer_del(&d->settle);
	fd_close(&d->inotify_fd);
	net_list_free(d->list);
	free(d->file);
	free(d->path);
	*d = (struct confdir){ .inotify_fd = -1, .watch = -1 };
}
