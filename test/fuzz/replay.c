/*
 * Stands in for libFuzzer where a harness runs as a unit test: every file given, or found in a
 * directory given, goes through LLVMFuzzerTestOneInput once, in the order of the names. A file that
 * cannot be read or a directory with nothing in it is an error.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "test/fuzz/fuzz.h"

#define INPUT_MAX (64 * MIB)

static int fail(const char *path, const char *text)
{
	(void)fprintf(stderr, "replay: %s: %s\n", path, text);
	return -1;
}

static int replay_file(const char *path)
{
	cleanup_free char *data = NULL;
	cleanup_free uint8_t *exact = NULL;
	struct err err = { 0 };
	size_t len;

	if (read_file(path, INPUT_MAX, &data, &len, &err) < 0)
		return fail(path, err_text(&err));
	/* A copy without the byte behind the end, so that a sanitizer sees every overrun. */
	exact = malloc(len ? len : 1);
	if (!exact)
		return fail(path, "out of memory");
	memcpy(exact, data, len);
	(void)LLVMFuzzerTestOneInput(exact, len);
	return 1;
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int replay_dir(const char *path)
{
	struct dirent **names;
	int n = scandir(path, &names, visible, alphasort), done = 0;

	if (n < 0)
		return fail(path, strerror(errno));
	for (int i = 0; i < n; i++) {
		cleanup_free char *file = str_fmt("%s/%s", path, names[i]->d_name);

		free(names[i]);
		if (done >= 0 && (!file || replay_file(file) < 0))
			done = -1;
		done += done >= 0;
	}
	free(names);
	return done ? done : fail(path, "no inputs");
}

int main(int argc, char **argv)
{
	int total = 0, n;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) < 0) {
			(void)fail(argv[i], strerror(errno));
			return 1;
		}
		n = S_ISDIR(st.st_mode) ? replay_dir(argv[i]) : replay_file(argv[i]);
		if (n < 0)
			return 1;
		total += n;
	}
	if (total == 0) {
		(void)fail("usage", "replay FILE-OR-DIRECTORY...");
		return 1;
	}
	printf("%d inputs, ok\n", total);
	return 0;
}
