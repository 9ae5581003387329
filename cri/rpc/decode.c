#include "cri/rpc/decode.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"

static int check_message(const ProtobufCMessage *m, struct err *err);

static int check_field(const ProtobufCFieldDescriptor *f, const void *value, struct err *err)
{
	if (f->type == PROTOBUF_C_TYPE_STRING) {
		const char *s = *(char *const *)value;

		if (s && !utf8_valid(s))
			return err_set(err, -EINVAL, "field %s is not valid UTF-8", f->name);
	} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
		const ProtobufCMessage *m = *(ProtobufCMessage *const *)value;

		if (m)
			return check_message(m, err);
	}
	return 0;
}

/* The messages of CRI do not contain themselves, so the depth is bounded by their descriptors. */
static int check_message(const ProtobufCMessage *m, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *member = (const char *)m + f->offset;
		void *const *v;
		size_t n;

		if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label != PROTOBUF_C_LABEL_REPEATED) {
			r = check_field(f, member, err);
			continue;
		}
		v = *(void *const *const *)(const void *)member;
		memcpy(&n, (const char *)m + f->quantifier_offset, sizeof(n));
		for (size_t k = 0; r == 0 && k < n; k++)
			r = check_field(f, &v[k], err);
	}
	return r;
}

int rpc_decode(struct pb_arena *arena, const ProtobufCMessageDescriptor *desc, const uint8_t *data,
	       size_t len, ProtobufCMessage **ret, struct err *err)
{
	ProtobufCMessage *m = NULL;
	int r = pb_unpack(arena, desc, data, len, &m);

	if (r == -ENOBUFS)
		return err_set(err, r, "the request needs more than %u MiB of memory",
			       RPC_DECODED_MAX >> 20);
	if (r == -ENOMEM)
		return err_nomem(err);
	if (r < 0)
		return err_set(err, -EINVAL, "the request is not a valid %s", desc->name);
	r = check_message(m, err);
	if (r < 0)
		return r;
	*ret = m;
	return 0;
}
