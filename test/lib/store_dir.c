#include "test/lib/store_dir.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/unit.h"

struct loop *store_loop;
char store_dir_path[64];

int store_dir_setup(void **state)
{
	(void)snprintf(store_dir_path, sizeof(store_dir_path), "/tmp/husk-store-XXXXXX");
	return !mkdtemp(store_dir_path) || loop_new(&store_loop, NULL) < 0;
}

int store_dir_teardown(void **state)
{
	loop_free(store_loop);
	return remove_tree(store_dir_path, NULL);
}

int store_dir_try(struct store **ret, struct err *err)
{
	const struct store_options o = { .loop = store_loop, .dir = store_dir_path };

	return store_open(&o, ret, err);
}

struct store *store_dir_open(void)
{
	struct store *s = NULL;
	struct err err = { 0 };

	assert_ok(store_dir_try(&s, &err), &err);
	return s;
}

char *path_in(const char *name)
{
	char *p = str_fmt("%s/%s", store_dir_path, name);

	assert_non_null(p);
	return p;
}

bool there(const char *name)
{
	cleanup_free char *p = path_in(name);

	return access(p, F_OK) == 0;
}
