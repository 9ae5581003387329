#include "cli/auth/secrets.h"

#include <string.h>

#include "base/util.h"

static void wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free_ptr(s);
}

void auth_fini(struct auth *a)
{
	free_ptr(&a->username);
	wipe(&a->password);
	wipe(&a->basic);
	wipe(&a->identity_token);
	wipe(&a->registry_token);
}

bool auth_empty(const struct auth *a)
{
	return !a->username && !a->basic && !a->identity_token && !a->registry_token;
}

static char *lend(char *s)
{
	return s ? s : (char *)"";
}

void auth_to_message(const struct auth *a, Cri__AuthConfig *m)
{
	cri__auth_config__init(m);
	m->username = lend(a->username);
	m->password = lend(a->password);
	m->auth = lend(a->basic);
	m->identity_token = lend(a->identity_token);
	m->registry_token = lend(a->registry_token);
}
