#include "cli/terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static int raw_fd = -1;

void terminal_restore(void)
{
	if (raw_fd >= 0)
		(void)tcsetattr(raw_fd, TCSADRAIN, &before);
	raw_fd = -1;
}

int terminal_raw(int fd, struct err *err)
{
	static bool at_exit;
	struct termios raw;

	if (tcgetattr(fd, &before) < 0)
		return err_errno(err, -errno, "the terminal");
	if (!at_exit && atexit(terminal_restore) != 0)
		return err_nomem(err);
	at_exit = true;
	raw = before;
	cfmakeraw(&raw);
	raw_fd = fd;
	if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
		return err_errno(err, -errno, "the terminal");
	return 0;
}

bool terminal_size(int fd, unsigned *width, unsigned *height)
{
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		return false;
	*width = size.ws_col;
	*height = size.ws_row;
	return true;
}
