/* What a guest's kernel says on its console, as the shim keeps and reads it. */
#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Harmless on a terminal, and inside its bounds. */
static void check_text(const char *text, size_t max)
{
	if (strlen(text) > max)
		abort();
	for (; *text; text++) {
		if (*text != '\n' && *text != '\t' && !isprint((unsigned char)*text))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *loop;
	struct console *con;
	struct err err = { 0 };
	char cause[100];
	ssize_t w;
	int fd;

	if ((!loop && loop_new(&loop, NULL) < 0) ||
	    console_new(loop, "/dev/null", &con, &fd, &err) < 0)
		abort();
	while (size > 0) {
		w = write(fd, data, MIN_OF(size, (size_t)3000));
		if (w <= 0)
			abort();
		data += w;
		size -= (size_t)w;
		console_drain(con);
		console_cause(con, cause, sizeof(cause));
		check_text(cause, sizeof(cause) - 1);
		check_text(console_tail(con, 100), 100);
		check_text(console_tail(con, SIZE_MAX), CONSOLE_TAIL_MAX);
	}
	fd_close(&fd);
	console_free(con);
	return 0;
}
