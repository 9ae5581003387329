/* What a guest's kernel says on its console, as the shim keeps and reads it. */
#include <ctype.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/console.h"
#include "test/fuzz/fuzz.h"

/* Harmless on a terminal, and inside its bounds. */
static void check_text(const char *text, size_t max)
{
	fuzz_assert(strlen(text) <= max);
	for (; *text; text++)
		fuzz_assert(*text == '\n' || *text == '\t' || isprint((unsigned char)*text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *loop;
	struct console *con;
	struct err err = { 0 };
	char cause[100];
	ssize_t w;
	int fd;

	fuzz_assert(loop || loop_new(&loop, NULL) == 0);
	fuzz_assert(console_new(loop, "/dev/null", &con, &fd, &err) == 0);
	while (size > 0) {
		w = write(fd, data, MIN_OF(size, (size_t)3000));
		fuzz_assert(w > 0);
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
