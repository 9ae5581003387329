/* An image store in a directory of its own, for tests that use no registry. */
#ifndef HUSK_TEST_LIB_STORE_DIR_H
#define HUSK_TEST_LIB_STORE_DIR_H

#include <stdbool.h>

#include "base/loop.h"
#include "image/store/store.h"

#define HEX "123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST(c) "sha256:" c HEX /* c: one more hex digit, a literal */

extern struct loop *store_loop;
extern char store_dir_path[64];

/* For cmocka: the directory and the loop, made and removed. */
int store_dir_setup(void **state);
int store_dir_teardown(void **state);
int store_dir_try(struct store **ret, struct err *err) must_check;
struct store *store_dir_open(void);
/* The caller frees. */
char *path_in(const char *name);
bool there(const char *name);

#endif
