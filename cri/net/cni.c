#include "cri/net/cni.h"

#include "base/util.h"

static const char *const versions[CNI_VERSIONS] = { "0.3.1", "0.4.0", "1.0.0", "1.1.0" };
static const char *const commands[] = { "ADD", "DEL", "CHECK", "VERSION", "STATUS", "GC" };

int cni_version_parse(const char *text)
{
	for (int i = 0; i < CNI_VERSIONS; i++)
		if (str_eq(versions[i], text))
			return i;
	return -1;
}

const char *cni_version_name(enum cni_version v)
{
	return versions[v];
}

const char *cni_command_name(enum cni_command c)
{
	return commands[c];
}
