/* /etc/passwd and /etc/group of an image: the spec, a 0, passwd, a 0, group. */
#include <string.h>

#include "agent/proc/user.h"
#include "base/util.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct user u;
	const uint8_t *end = data + size, *passwd, *group;
	Agent__User spec = AGENT__USER__INIT;
	cleanup_free char *pw = NULL, *gr = NULL;
	struct err err = { 0 };
	size_t pw_len, gr_len;
	int r;

	passwd = size ? memchr(data, 0, size) : NULL;
	if (!passwd)
		return 0;
	passwd++;
	group = memchr(passwd, 0, (size_t)(end - passwd));
	group = group ? group + 1 : end;
	spec.name = (char *)data;
	/* Exact copies, so that a sanitizer sees one byte too far. */
	pw = malloc((size_t)(end - passwd) + 1);
	gr = malloc((size_t)(end - group) + 1);
	pw_len = (size_t)(group - passwd);
	gr_len = (size_t)(end - group);
	pw_len -= pw_len > 0 && passwd[pw_len - 1] == '\0';
	memcpy(pw, passwd, pw_len);
	memcpy(gr, group, gr_len);
	r = user_resolve(&spec, pw_len ? pw : NULL, pw_len, gr_len ? gr : NULL, gr_len, &u, &err);
	fuzz_assert(r <= 0 && (r == 0 || err.msg[0]));
	if (r == 0)
		fuzz_assert(u.uid != (uid_t)-1 && u.gid != (gid_t)-1 && u.home[0] == '/' &&
			    strlen(u.home) < sizeof(u.home) && u.n_groups <= PROCESS_GROUPS_MAX);
	return 0;
}
