#include "cri/net/json.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"

void net_json_freep(json_t **j)
{
	json_decref(*j);
	*j = NULL;
}

/* Not a check of the syntax, which is jansson's. */
static int count_values(const char *text, size_t len, struct err *err)
{
	unsigned depth = 0, values = 1;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (quoted) {
			i += c == '\\';
			quoted = c != '"';
			continue;
		}
		quoted = c == '"';
		if (c == '{' || c == '[')
			depth++;
		if ((c == '}' || c == ']') && depth > 0)
			depth--;
		if (c == '{' || c == '[' || c == ',' || c == ':')
			values++;
		if (depth > NET_JSON_DEPTH_MAX)
			return err_set(err, -EFBIG, "JSON of more than %u levels",
				       NET_JSON_DEPTH_MAX);
		if (values > NET_JSON_VALUES_MAX)
			return err_set(err, -EFBIG, "JSON of more than %u values",
				       NET_JSON_VALUES_MAX);
	}
	return 0;
}

int net_json_parse_own(const char *text, size_t len, json_t **ret, struct err *err)
{
	json_error_t e;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!j)
		return err_set(err, -EPROTO, "not JSON: %s (line %d)", e.text, e.line);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(err, -EPROTO, "JSON, but no object");
	}
	*ret = j;
	return 0;
}

int net_json_parse(const char *text, size_t len, json_t **ret, struct err *err)
{
	int r = count_values(text, len, err);

	return r < 0 ? r : net_json_parse_own(text, len, ret, err);
}

const char *net_json_str(const json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

json_t *net_json_get(const json_t *j, const char *key)
{
	json_t *v = json_object_get(j, key);

	return json_is_null(v) ? NULL : v;
}

void net_json_line(char *out, size_t size, const char *text, size_t len)
{
	size_t n = 0;

	while (len > 0 && (unsigned char)text[len - 1] <= ' ')
		len--;
	for (size_t i = 0; i < len && n + 1 < size; i++) {
		bool control = (unsigned char)text[i] < ' ' || text[i] == 0x7f;

		if (control && n > 0 && out[n - 1] == ' ')
			continue;
		out[n++] = control ? ' ' : text[i];
	}
	out[n] = '\0';
	utf8_trim(out);
}
