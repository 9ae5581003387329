/* Names of images and of hosts: a normalised name is its own normalised name. */
#include <string.h>

#include "base/util.h"
#include "image/address.h"
#include "image/reference.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_free char *text = malloc(size + 1);
	char one[REFERENCE_MAX + 1], two[REFERENCE_MAX + 1];
	struct reference r;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (reference_parse(text, &r, NULL) == 0) {
		reference_canonical(&r, one);
		fuzz_assert(reference_parse(one, &r, NULL) == 0);
		reference_canonical(&r, two);
		fuzz_assert(str_eq(one, two));
	}
	(void)host_is_loopback(text);
	(void)address_kind(text);
	return 0;
}
