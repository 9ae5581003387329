#include "test/lib/store_dir.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/unit.h"

struct loop *store_loop;
char store_dir[64];

int store_dir_setup(void **state)
{
	(void)snprintf(store_dir, sizeof(store_dir), "/tmp/husk-store-XXXXXX");
	return !mkdtemp(store_dir) || loop_new(&store_loop, NULL) < 0;
}

int store_dir_teardown(void **state)
{
	loop_free(store_loop);
	return remove_tree(store_dir, NULL);
}

int store_try_open(struct image_store **ret, struct err *err)
{
	const struct image_store_options o = {
		.loop = store_loop, .dir = store_dir, .worker = "/bin/false", .arch = "amd64"
	};

	return image_store_open(&o, ret, err);
}

struct image_store *store_open(void)
{
	struct image_store *s = NULL;
	struct err err = { 0 };

	assert_ok(store_try_open(&s, &err), &err);
	return s;
}

char *path_in(const char *name)
{
	char *p = str_fmt("%s/%s", store_dir, name);

	assert_non_null(p);
	return p;
}

bool there(const char *name)
{
	cleanup_free char *p = path_in(name);

	return access(p, F_OK) == 0;
}
