/* The head of a request, whole and cut anywhere. */
#include <errno.h>

#include "cri/stream/http.h"
#include "cri/stream/wire.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_head h;
	ssize_t n = http_head_parse(data, size, &h);
	char word[64];
	size_t pos = 0;

	fuzz_assert(n <= (ssize_t)size && n <= (ssize_t)HTTP_HEAD_MAX);
	if (n <= 0)
		return 0;
	fuzz_assert(h.n_fields <= HTTP_FIELDS_MAX && h.target[0] == '/');
	fuzz_assert(strlen(h.target) <= HTTP_TARGET_MAX);
	for (size_t i = 0; i < h.n_fields; i++) {
		fuzz_assert(*h.fields[i].name && !strpbrk(h.fields[i].name, " \t\r\n:"));
		fuzz_assert(!strpbrk(h.fields[i].value, "\r\n"));
		fuzz_assert(http_value(&h, h.fields[i].name));
	}
	while (http_next_word(&h, "Upgrade", &pos, word, sizeof(word)))
		fuzz_assert(http_has_word(&h, "upgrade", word));
	(void)http_has_body(&h);
	(void)wire_choose(&h, "X-Stream-Protocol-Version", true);
	(void)wire_choose(&h, "Sec-WebSocket-Protocol", false);
	http_head_fini(&h);
	return 0;
}
