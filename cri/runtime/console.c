#include "cri/runtime/console.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define NAME "console.log"

static bool is_console(const char *name)
{
	return str_eq(name, NAME) || str_eq(name, NAME ".1");
}

/* The next entry that is no console; NULL = there is none. */
static const struct dirent *next_other(DIR *d)
{
	const struct dirent *e;

	while ((e = readdir(d)))
		if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, "..") && !is_console(e->d_name))
			break;
	return e;
}

int console_keep(const char *bundle, struct err *err)
{
	DIR *d = opendir(bundle);
	const struct dirent *e;
	int r = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_errno(err, -errno, "open %s", bundle);
	while (r == 0 && (e = next_other(d))) {
		cleanup_free char *path = str_fmt("%s/%s", bundle, e->d_name);

		r = path ? remove_tree(path, err) : err_nomem(err);
	}
	closedir(d);
	return r;
}

bool console_alone(const char *bundle)
{
	DIR *d = opendir(bundle);
	bool alone;

	if (!d)
		return errno == ENOENT;
	alone = !next_other(d);
	closedir(d);
	return alone;
}

/* The end of the file, from the beginning of a line on. Bytes, or -errno. */
static ssize_t read_end(const char *path, char *buf, size_t size)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	ssize_t n;
	char *line;

	if (end < 0)
		return -errno;
	n = pread(fd, buf, size, end > (off_t)size ? end - (off_t)size : 0);
	if (n < 0)
		return -errno;
	if (end <= (off_t)size)
		return n;
	line = memchr(buf, '\n', (size_t)n);
	if (!line)
		return n;
	n -= line + 1 - buf;
	memmove(buf, line + 1, (size_t)n);
	return n;
}

void console_describe(const char *bundle, json_t *info)
{
	cleanup_free char *path = str_fmt("%s/" NAME, bundle);
	char text[CONSOLE_SHOWN + 1], *line, *save = NULL;
	json_t *lines = json_array();
	ssize_t n = path ? read_end(path, text, CONSOLE_SHOWN) : -ENOMEM;

	if (n >= 0 && lines) {
		text[n] = 0;
		for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			(void)json_array_append_new(lines, json_string(line));
		(void)json_object_set_new(info, "consoleLog", json_string(path));
		(void)json_object_set(info, "console", lines);
	}
	json_decref(lines);
}
