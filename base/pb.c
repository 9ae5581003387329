#include "base/pb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"
#include "proto/wkt.pb-c.h"

#define CHUNK_FIRST (4 * KIB)
#define CHUNK_LAST (1 * MIB)
#define TYPE_PREFIX "type.googleapis.com/"

struct pb_chunk {
	struct pb_chunk *older;
	size_t size;
	_Alignas(16) uint8_t bytes[];
};

void pb_arena_init(struct pb_arena *a, size_t max)
{
	*a = (struct pb_arena){ .max = max };
}

void pb_arena_fini(struct pb_arena *a)
{
	struct pb_chunk *c;

	while ((c = a->chunks)) {
		a->chunks = c->older;
		free(c);
	}
	pb_arena_init(a, a->max);
}

static int add_chunk(struct pb_arena *a, size_t n)
{
	size_t size = a->chunks ? MIN_OF(a->chunks->size * 2, CHUNK_LAST) : CHUNK_FIRST;
	struct pb_chunk *c;

	size = MAX_OF(size, n);
	c = malloc(sizeof(*c) + size);
	if (!c)
		return -ENOMEM;
	c->older = a->chunks;
	c->size = size;
	a->chunks = c;
	a->next = c->bytes;
	a->left = size;
	return 0;
}

void *pb_arena_alloc(struct pb_arena *a, size_t n)
{
	uint8_t *p;

	if (n > a->max - a->used || ((n + 15) & ~(size_t)15) > a->max - a->used) {
		a->full = true;
		return NULL;
	}
	n = (n + 15) & ~(size_t)15;
	if (n > a->left && add_chunk(a, n) < 0) {
		a->oom = true;
		return NULL;
	}
	p = a->next;
	a->next += n;
	a->left -= n;
	a->used += n;
	return p;
}

static void *pb_alloc(void *arena, size_t n)
{
	return pb_arena_alloc(arena, n);
}

static void pb_free(void *arena, void *p)
{
	(void)arena;
	(void)p;
}

int pb_unpack(struct pb_arena *a, const ProtobufCMessageDescriptor *desc, const void *data,
	      size_t len, ProtobufCMessage **ret)
{
	ProtobufCAllocator al = { .alloc = pb_alloc, .free = pb_free, .allocator_data = a };
	ProtobufCMessage *m;

	a->full = a->oom = false;
	m = protobuf_c_message_unpack(desc, &al, len, data);
	/* A refused allocation may also show as a field that is missing. */
	if (a->oom)
		return -ENOMEM;
	if (a->full)
		return -ENOBUFS;
	if (!m)
		return -EBADMSG;
	*ret = m;
	return 0;
}

uint8_t *pb_pack(const ProtobufCMessage *m, size_t *ret_len)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *bytes = malloc(n + 1);

	if (bytes)
		*ret_len = protobuf_c_message_pack(m, bytes);
	return bytes;
}

ProtobufCMessage *pb_clone(const ProtobufCMessage *m)
{
	size_t n;
	cleanup_free uint8_t *bytes = pb_pack(m, &n);

	return bytes ? protobuf_c_message_unpack(m->descriptor, NULL, n, bytes) : NULL;
}

/* True if all strings are valid; with `repair` they are afterwards. The depth is that of our own
 * messages' types. */
static bool walk_strings(const ProtobufCMessage *m, bool repair);

static bool walk_member(const ProtobufCFieldDescriptor *f, void *value, bool repair)
{
	if (!value)
		return true;
	if (f->type == PROTOBUF_C_TYPE_MESSAGE)
		return walk_strings(value, repair);
	if (utf8_valid(value))
		return true;
	if (repair)
		utf8_repair(value);
	return false;
}

static bool walk_strings(const ProtobufCMessage *m, bool repair)
{
	bool valid = true;

	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *member = (const char *)m + f->offset;
		void *const *values = (void *const *)(const void *)member;
		const void *quantifier = (const char *)m + f->quantifier_offset;
		size_t n = 1;

		if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			memcpy(&n, quantifier, sizeof(n));
			values = n ? *(void *const *const *)(const void *)member : NULL;
		} else if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			n = *(const uint32_t *)quantifier == f->id;
		}
		for (size_t k = 0; k < n; k++)
			valid = walk_member(f, values[k], repair) && valid;
	}
	return valid;
}

int pb_repair(const ProtobufCMessage **m, ProtobufCMessage **ret_copy)
{
	ProtobufCMessage *copy = NULL;

	if (*m && !walk_strings(*m, false)) {
		copy = pb_clone(*m);
		if (!copy)
			return -ENOMEM;
		(void)walk_strings(copy, true);
		*m = copy;
	}
	*ret_copy = copy;
	return 0;
}

void pb_freep(ProtobufCMessage **m)
{
	protobuf_c_message_free_unpacked(*m, NULL);
}

const char *pb_any_type(const Wkt__Any *any)
{
	const char *type = any ? any->type_url : "";

	return str_starts(type, TYPE_PREFIX) ? type + strlen(TYPE_PREFIX) : type;
}

void pb_timestamp_set(Wkt__Timestamp *t, int64_t real_ns)
{
	t->seconds = real_ns / (int64_t)NS_PER_S;
	t->nanos = (int32_t)(real_ns % (int64_t)NS_PER_S);
}

int64_t pb_timestamp_ns(const Wkt__Timestamp *t)
{
	const int64_t second = (int64_t)NS_PER_S;

	if (!t || t->seconds <= 0 || t->seconds > INT64_MAX / second - 1)
		return 0;
	return t->seconds * second + (t->nanos >= 0 && t->nanos < second ? t->nanos : 0);
}
