/*
 * A sandbox over a VM that pretends (fake_vm.h), not prepared yet: what tests of the sandbox, and
 * of what is in it, begin with. A test changes `opts` and `setup` before it starts the sandbox. The
 * group of tests makes the directory of tmpdir.h. Whatever goes wrong in here fails the test.
 */
#ifndef HUSK_TEST_LIB_SHIM_SANDBOX_FIXTURE_H
#define HUSK_TEST_LIB_SHIM_SANDBOX_FIXTURE_H

#include "shim/pod/sandbox.h"

extern struct loop *loop;
extern struct sandbox sb;
extern Shim__Options opts;
extern struct sandbox_setup setup;
extern char *console; /* path of the file, = setup.console */

void sandbox_fixture_begin(const struct sandbox_ops *ops);
void sandbox_fixture_end(void); /* after sandbox_fini */

void run_for(uint64_t ms); /* the loop */

#endif
