#include "vmm/dev/console.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

void console_init(struct console *c)
{
	*c = (struct console){ .sink = -1 };
}

void console_set_sink(struct console *c, int fd)
{
	struct stat st;

	fd_close(&c->sink);
	/* A sink that cannot be made non-blocking could stop the loop: better no output. */
	if (fd >= 0 && (fstat(fd, &st) < 0 || fd_set_nonblock(fd, true) < 0))
		fd_close(&fd);
	c->sink = fd;
	c->left = fd >= 0 && S_ISREG(st.st_mode) ? CONSOLE_FILE_MAX : UINT64_MAX;
}

void console_output(struct console *c, const void *data, size_t n)
{
	ssize_t r;

	if (c->sink < 0 || c->left == 0)
		return;
	r = write(c->sink, data, MIN_OF(n, c->left));
	if (r > 0 && c->left != UINT64_MAX)
		c->left -= (uint64_t)r;
}

void console_fini(struct console *c)
{
	fd_close(&c->sink);
}
