/* config.json, and the Process of an exec, as the shim reads them. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "shim/oci/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Agent__Process *process;
	struct pb_arena a;
	struct oci_spec spec;
	struct err e = { 0 };
	size_t n;

	pb_arena_init(&a, OCI_MEMORY_MAX);
	if (oci_parse(&a, (const char *)data, size, &spec, &e) == 0) {
		/* What was accepted can be sent. */
		n = agent__create_container_request__get_packed_size(spec.req);
		if (n > 4 * OCI_JSON_MAX || !spec.req->process || !spec.req->process->n_args)
			abort();
	}
	pb_arena_fini(&a);
	pb_arena_init(&a, OCI_MEMORY_MAX);
	if (oci_parse_process(&a, (const char *)data, size, &process, &e) == 0 && !process->n_args)
		abort();
	pb_arena_fini(&a);
	return 0;
}
