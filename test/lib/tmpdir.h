/* A directory for the files of one test program: set-up and tear-down of its group of tests. */
#ifndef HUSK_TEST_LIB_TMPDIR_H
#define HUSK_TEST_LIB_TMPDIR_H

extern char *tmpdir;

int tmpdir_make(void **state); /* /tmp/husk-test.PID, empty */
int tmpdir_remove(void **state);
char *in_tmpdir(const char *name); /* its path; the caller frees */

#endif
