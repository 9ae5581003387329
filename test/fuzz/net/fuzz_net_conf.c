/* A network's configuration, as a list and as a single plug-in. */
#include "base/util.h"
#include "cri/net/conf.h"
#include "cri/net/json.h"
#include "test/fuzz/fuzz.h"

static void parse(const char *text, size_t size, bool single)
{
	cleanup_net_list struct net_list *l = NULL, *again = NULL;
	cleanup_json json_t *caps = NULL;

	if (net_list_parse(text, size, single, &l, NULL) < 0)
		return;
	fuzz_assert(l->n >= 1 && l->n <= NET_CONF_PLUGINS_MAX);
	caps = json_pack("{s:s}", "portMappings", "x");
	for (size_t i = 0; i < l->n; i++) {
		cleanup_json json_t *c = NULL;

		fuzz_assert(!strchr(net_list_type(l, i), '/'));
		fuzz_assert(net_list_config(l, i, caps, caps, NULL, &c, NULL) == 0);
		fuzz_assert(str_eq(net_json_str(c, "name"), l->name));
		fuzz_assert(cni_version_parse(net_json_str(c, "cniVersion")) == (int)l->version);
	}
	/* What was taken once is taken from our own records, too. */
	fuzz_assert(net_list_of(l->json, &again, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	parse((const char *)data, size, false);
	parse((const char *)data, size, true);
	return 0;
}
