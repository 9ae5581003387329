/*
 * JSON of administrators and plug-ins: parsed with limits on depth and number of values, which are
 * counted before jansson sees the text, since its memory is many times the text's size. Keys that
 * come twice are refused. Leaf functions.
 */
#ifndef HUSK_CRI_NET_JSON_H
#define HUSK_CRI_NET_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/compiler.h"
#include "base/err.h"

#define NET_JSON_DEPTH_MAX 32u
#define NET_JSON_VALUES_MAX 16384u

void net_json_freep(json_t **j);
#define cleanup_json cleanup_with(net_json_freep)

/* An object; the caller's. -EPROTO (no JSON, or no object), -EFBIG (a limit). */
int net_json_parse(const char *text, size_t len, json_t **ret, struct err *err) must_check;
/* Of a file of our own: what is in it had its limits before, so there are none but `len`. */
int net_json_parse_own(const char *text, size_t len, json_t **ret, struct err *err) must_check;
/* A member that is a string, else NULL; borrowed. */
const char *net_json_str(const json_t *j, const char *key);
/* A member that is null counts as absent. */
json_t *net_json_get(const json_t *j, const char *key);
/* A text of somebody else for one of ours: at most size - 1 bytes, in one line, valid UTF-8. */
void net_json_line(char *out, size_t size, const char *text, size_t len);

#endif
