/* Documents of a registry: manifest, index, configuration. */
#include "base/util.h"
#include "image/manifest.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct manifest m;
	char choice[DIGEST_LEN + 1];
	struct image_config c;

	if (manifest_parse(data, size, "amd64", &m, choice, NULL) == 0)
		fuzz_assert(*choice ? digest_valid(choice) : m.n_layers <= IMAGE_MAX_LAYERS);
	if (image_config_parse(data, size, &c, NULL) == 0) {
		fuzz_assert(c.env && c.cmd && c.entrypoint && c.user && c.diff_ids);
		image_config_fini(&c);
	}
	return 0;
}
