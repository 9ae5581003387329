/* Which methods of a ttrpc service a table serves. */
#ifndef HUSK_TEST_LIB_SERVES_H
#define HUSK_TEST_LIB_SERVES_H

#include "test/lib/unit.h"

#include "base/ttrpc/ttrpc.h"
#include "base/util.h"

static inline const struct ttrpc_method *served(const struct ttrpc_service *svc, const char *method)
{
	for (const struct ttrpc_method *m = svc->methods; m->name; m++)
		if (str_eq(m->name, method))
			return m;
	return NULL;
}

/* Every method of the .proto file has its handler, only `streaming` (NULL: none) answers with a
 * stream, and the server takes the table. */
static inline void assert_serves_all(const struct ttrpc_service *svc, const char *streaming)
{
	struct ttrpc_server *s;
	struct err err = { 0 };

	for (unsigned i = 0; i < svc->desc->n_methods; i++) {
		const char *name = svc->desc->methods[i].name;
		const struct ttrpc_method *m = served(svc, name);

		if (!m)
			fail_msg("%s/%s has no handler", svc->desc->name, name);
		assert_int_equal(m->streams, streaming && str_eq(name, streaming));
	}
	assert_ok(ttrpc_server_new(NULL, svc, 1, &s, &err), &err);
	ttrpc_server_free(s);
}

#endif
