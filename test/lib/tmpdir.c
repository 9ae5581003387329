#include "test/lib/tmpdir.h"

#include <unistd.h>

#include "base/util.h"
#include "test/lib/unit.h"

char *tmpdir;

int tmpdir_make(void **state)
{
	struct err err = { 0 };

	tmpdir = str_fmt("/tmp/husk-test.%d", (int)getpid());
	return !tmpdir || remove_tree(tmpdir, &err) < 0 || mkdir_p(tmpdir, 0700, &err) < 0;
}

int tmpdir_remove(void **state)
{
	struct err err = { 0 };
	int r = remove_tree(tmpdir, &err);

	free(tmpdir);
	return r;
}

char *in_tmpdir(const char *name)
{
	char *p = str_fmt("%s/%s", tmpdir, name);

	assert_non_null(p);
	return p;
}
