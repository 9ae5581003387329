/*
 * One ttrpc call from the command line, for tests and for people who look into a running pod:
 *
 *	ttrpc_call [-t SECONDS] ADDRESS SERVICE METHOD [JSON]
 *	ttrpc_call unix:///run/husk/s/4f... containerd.task.v2.Task State '{"id": "c1"}'
 *
 * The answer is printed as JSON. A field of type Any is written with its type: {"@type":
 * "husk.shim.v1.Options", "vcpus": 2}, or with the bytes of "value" as they are. Bytes are strings.
 *	ttrpc_call any JSON	prints the packed Any, e.g. for the standard input of the shim's
 *`start` Exit status: 0; 1 = the call failed, the error is printed as JSON; 2 = bad usage.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "proto/cri.pb-c.h"
#include "proto/shim.pb-c.h"

static const ProtobufCServiceDescriptor *const services[] = {
	&task_v2__task__descriptor, &task_v3__task__descriptor, &sandbox__sandbox__descriptor,
	&shim__shim__descriptor,    &agent__agent__descriptor,
};

static const ProtobufCMessageDescriptor *const any_types[] = {
	&shim__options__descriptor,
	&shim__start_error__descriptor,
	&cri__pod_sandbox_config__descriptor,
};

static noreturn_fn void die(const char *what, const char *value)
{
	fprintf(stderr, "ttrpc_call: %s%s%s\n", what, value ? ": " : "", value ? value : "");
	exit(2);
}

static void *zalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		die("out of memory", NULL);
	return p;
}

static const ProtobufCMessageDescriptor *any_type(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(any_types); i++) {
		if (str_eq(any_types[i]->name, name))
			return any_types[i];
	}
	return NULL;
}

/* ---- JSON -> message ---- */

static ProtobufCMessage *build(const ProtobufCMessageDescriptor *d, json_t *v);

static void set_any(Wkt__Any *any, json_t *v)
{
	const ProtobufCMessageDescriptor *d =
		any_type(json_string_value(json_object_get(v, "@type")));
	ProtobufCMessage *msg;

	if (!d)
		die("an Any needs an @type that this tool knows, or type_url and value", NULL);
	(void)json_object_del(v, "@type");
	msg = build(d, v);
	any->type_url = (char *)d->name;
	any->value.len = protobuf_c_message_get_packed_size(msg);
	any->value.data = zalloc(any->value.len);
	(void)protobuf_c_message_pack(msg, any->value.data);
}

static void set_value(const ProtobufCFieldDescriptor *f, void *at, json_t *v)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		if (!json_is_string(v))
			die("not a string", f->name);
		*(char **)at = strdup(json_string_value(v));
		break;
	case PROTOBUF_C_TYPE_BYTES: {
		ProtobufCBinaryData *b = at;

		b->len = json_string_length(v);
		b->data = (uint8_t *)strdup(json_is_string(v) ? json_string_value(v) : "");
		break;
	}
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = json_is_true(v);
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)at = build(f->descriptor, v);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(int64_t *)at = json_integer_value(v);
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_ENUM:
		*(int32_t *)at = (int32_t)json_integer_value(v);
		break;
	default:
		die("a type of field that this tool does not know", f->name);
	}
}

static size_t value_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	default:
		return 8;
	}
}

static void set_repeated(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, json_t *v)
{
	size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v), i = 0;
	char *list = zalloc(n * value_size(f));

	if (json_is_object(v)) { /* a map: entries of key and value */
		const char *key;
		json_t *e;

		json_object_foreach (v, key, e) {
			json_t *pair = json_pack("{s:s, s:O}", "key", key, "value", e);

			set_value(f, list + i++ * value_size(f), pair);
			json_decref(pair);
		}
	} else {
		for (; i < n; i++)
			set_value(f, list + i * value_size(f), json_array_get(v, i));
	}
	*(size_t *)((char *)m + f->quantifier_offset) = n;
	*(void **)((char *)m + f->offset) = list;
}

static ProtobufCMessage *build(const ProtobufCMessageDescriptor *d, json_t *v)
{
	ProtobufCMessage *m = zalloc(d->sizeof_message);
	const char *key;
	json_t *e;

	if (!json_is_object(v))
		die("not an object", d->name);
	protobuf_c_message_init(d, m);
	if (d == &wkt__any__descriptor && json_object_get(v, "@type")) {
		set_any((Wkt__Any *)m, v);
		return m;
	}
	json_object_foreach (v, key, e) {
		const ProtobufCFieldDescriptor *f =
			protobuf_c_message_descriptor_get_field_by_name(d, key);

		if (!f)
			die("no such field", key);
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			set_repeated(m, f, e);
		else
			set_value(f, (char *)m + f->offset, e);
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
			*(int *)((char *)m + f->quantifier_offset) = (int)f->id;
	}
	return m;
}

/* ---- message -> JSON ---- */

static json_t *show(const ProtobufCMessage *m);

static json_t *show_text(const void *data, size_t n)
{
	json_t *v = json_stringn(data, n);
	char *hex;

	if (v)
		return v;
	hex = zalloc(2 * n + 1); /* not UTF-8 */
	hex_encode(data, n, hex);
	v = json_string(hex);
	free(hex);
	return v;
}

static json_t *show_value(const ProtobufCFieldDescriptor *f, const void *at)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: {
		const char *s = *(char *const *)at;

		return show_text(s ? s : "", s ? strlen(s) : 0);
	}
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *b = at;

		return show_text(b->data, b->len);
	}
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)at);
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(ProtobufCMessage *const *)at ? show(*(ProtobufCMessage *const *)at) : NULL;
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumValue *e =
			protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)at);

		return e ? json_string(e->name) : json_integer(*(const int *)at);
	}
	case PROTOBUF_C_TYPE_INT32:
		return json_integer(*(const int32_t *)at);
	case PROTOBUF_C_TYPE_UINT32:
		return json_integer(*(const uint32_t *)at);
	default:
		return json_integer(*(const int64_t *)at);
	}
}

static json_t *show(const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;
	json_t *o = json_object(), *v;

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const char *at = (const char *)m + f->offset;

		if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
		    *(const int *)((const char *)m + f->quantifier_offset) != (int)f->id)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);

			v = json_array();
			for (size_t k = 0; k < n; k++)
				(void)json_array_append_new(
					v, show_value(f, *(char *const *)at + k * value_size(f)));
		} else {
			v = show_value(f, at);
		}
		if (v)
			(void)json_object_set_new(o, f->name, v);
	}
	return o;
}

/* ---- the call ---- */

static void print(json_t *v)
{
	(void)json_dumpf(v, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(v);
}

static void on_done(const struct ttrpc_result *res, void *arg)
{
	struct loop *l = arg;
	json_t *v;

	if (res->code == 0) {
		if (res->resp)
			print(show(res->resp));
		loop_stop(l, 0);
		return;
	}
	v = json_pack("{s:i, s:s}", "code", (int)res->status, "message", err_text(res->err));
	if (!str_empty(res->detail_type)) {
		const ProtobufCMessageDescriptor *d = any_type(res->detail_type);
		ProtobufCMessage *m =
			d ? protobuf_c_message_unpack(d, NULL, res->detail_len, res->detail) : NULL;

		(void)json_object_set_new(v, res->detail_type, m ? show(m) : json_null());
	}
	print(v);
	loop_stop(l, 1);
}

static void on_data(const ProtobufCMessage *msg, void *arg)
{
	print(show(msg));
	(void)fflush(stdout);
}

static int pack_any(const char *text)
{
	json_t *v = json_loads(text, 0, NULL);
	ProtobufCMessage *m = v ? build(&wkt__any__descriptor, v) : NULL;
	size_t n = m ? protobuf_c_message_get_packed_size(m) : 0;
	uint8_t *packed = zalloc(n);

	if (!m)
		die("JSON", text);
	(void)protobuf_c_message_pack(m, packed);
	return write_all(1, packed, n) < 0;
}

int main(int argc, char **argv)
{
	const ProtobufCServiceDescriptor *svc = NULL;
	const ProtobufCMethodDescriptor *method;
	struct ttrpc_client *client;
	struct err e = { 0 };
	uint64_t seconds = 60;
	struct loop *l;
	json_error_t je;
	json_t *v;
	int fd, c, r;

	while ((c = getopt(argc, argv, "t:")) != -1) {
		if (c != 't' || str_to_u64(optarg, 0, 86400, &seconds) < 0)
			die("usage: ttrpc_call [-t SECONDS] ADDRESS SERVICE METHOD [JSON]", NULL);
	}
	argv += optind;
	argc -= optind;
	if (argc == 2 && str_eq(argv[0], "any"))
		return pack_any(argv[1]);
	if (argc < 3 || argc > 4)
		die("usage: ttrpc_call [-t SECONDS] ADDRESS SERVICE METHOD [JSON]", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
		if (str_eq(services[i]->name, argv[1]))
			svc = services[i];
	}
	method = svc ? protobuf_c_service_descriptor_get_method_by_name(svc, argv[2]) : NULL;
	if (!method)
		die("no such service or method", argv[2]);
	v = json_loads(argc > 3 ? argv[3] : "{}", 0, &je);
	if (!v)
		die("JSON", je.text);
	r = loop_new(&l, &e);
	if (r == 0)
		r = unix_connect(argv[0], &fd, &e);
	if (r == 0)
		r = ttrpc_client_new(l, fd, NULL, NULL, &client, &e);
	if (r == 0)
		r = ttrpc_client_set_metadata(client, "containerd-namespace-ttrpc", "husk");
	if (r == 0 && str_eq(argv[2], "Events"))
		r = ttrpc_client_stream(client, svc, argv[2], build(method->input, v), on_data,
					on_done, l);
	else if (r == 0)
		r = ttrpc_client_call(client, svc, argv[2], build(method->input, v), seconds * 1000,
				      on_done, l);
	if (r < 0)
		die(argv[0], err_text(&e));
	r = loop_run(l);
	ttrpc_client_free(client);
	loop_free(l);
	json_decref(v);
	return r;
}
