#include "cri/stream/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

static bool is_token(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool all_token(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!is_token(*s))
			return false;
	return true;
}

/* Visible ASCII; with `blanks` also space, tab and what is beyond ASCII. */
static bool all_visible(const char *s, bool blanks)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c > 0x20 && c < 0x7f)
			continue;
		if (!blanks || (c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

/* Cuts off the line at *p, which moves on. NULL: it does not end with CRLF. */
static char *cut_line(char **p)
{
	char *line = *p, *end = strchr(line, '\n');

	if (!end || end == line || end[-1] != '\r')
		return NULL;
	end[-1] = '\0';
	*p = end + 1;
	return strchr(line, '\r') ? NULL : line;
}

static int parse_request_line(char *line, struct http_head *h)
{
	char *target = strchr(line, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;

	if (!version)
		return -EPROTO;
	*target++ = '\0';
	*version++ = '\0';
	if (!all_token(line) || target[0] != '/' || !all_visible(target, false))
		return -EPROTO;
	if (strlen(target) > HTTP_TARGET_MAX)
		return -EMSGSIZE;
	if (!str_eq(version, "HTTP/1.1"))
		return str_starts(version, "HTTP/") ? -EOPNOTSUPP : -EPROTO;
	h->method = line;
	h->target = target;
	return 0;
}

static int parse_field(char *line, struct http_head *h)
{
	char *value = strchr(line, ':'), *end;

	if (!value)
		return -EPROTO;
	*value++ = '\0';
	value += strspn(value, " \t");
	end = value + strlen(value);
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	if (!all_token(line) || !all_visible(value, true))
		return -EPROTO;
	if (h->n_fields == HTTP_FIELDS_MAX)
		return -EMSGSIZE;
	h->fields[h->n_fields++] = (struct http_field){ line, value };
	return 0;
}

ssize_t http_head_parse(const void *data, size_t n, struct http_head *ret)
{
	const char *end = memmem(data, n, "\r\n\r\n", 4);
	struct http_head h = { 0 };
	size_t len = end ? (size_t)(end + 4 - (const char *)data) : 0;
	char *p, *line;
	int r;

	if (len > HTTP_HEAD_MAX || (!len && n >= HTTP_HEAD_MAX))
		return -EMSGSIZE;
	/* Not HTTP at all is told by the first byte, not by waiting for its end. */
	if (n > 0 && !is_token(*(const char *)data))
		return -EPROTO;
	if (!len)
		return 0;
	if (memchr(data, 0, len))
		return -EPROTO;
	h.text = p = strndup(data, len - 2);
	if (!p)
		return -ENOMEM;
	line = cut_line(&p);
	r = line ? parse_request_line(line, &h) : -EPROTO;
	while (r == 0 && *p) {
		line = cut_line(&p);
		r = line ? parse_field(line, &h) : -EPROTO;
	}
	if (r < 0) {
		free(h.text);
		return r;
	}
	*ret = h;
	return (ssize_t)len;
}

void http_head_fini(struct http_head *h)
{
	free(h->text);
	*h = (struct http_head){ 0 };
}

const char *http_value(const struct http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n_fields; i++)
		if (strcasecmp(h->fields[i].name, name) == 0)
			return h->fields[i].value;
	return NULL;
}

/* *pos counts the words of all fields from the first. */
bool http_next_word(const struct http_head *h, const char *name, size_t *pos, char *word,
		    size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < h->n_fields; i++) {
		const char *p = h->fields[i].value;

		if (strcasecmp(h->fields[i].name, name) != 0)
			continue;
		while (*p) {
			size_t len;

			p += strspn(p, ", \t");
			len = strcspn(p, ", \t");
			if (len > 0 && len < size && at++ == *pos) {
				memcpy(word, p, len);
				word[len] = '\0';
				(*pos)++;
				return true;
			}
			p += len;
		}
	}
	return false;
}

bool http_has_word(const struct http_head *h, const char *name, const char *word)
{
	char w[64];
	size_t pos = 0;

	while (http_next_word(h, name, &pos, w, sizeof(w)))
		if (strcasecmp(w, word) == 0)
			return true;
	return false;
}

bool http_has_body(const struct http_head *h)
{
	for (size_t i = 0; i < h->n_fields; i++) {
		const struct http_field *f = &h->fields[i];

		if (strcasecmp(f->name, "Transfer-Encoding") == 0 ||
		    strcasecmp(f->name, "Expect") == 0)
			return true;
		if (strcasecmp(f->name, "Content-Length") == 0 && !str_eq(f->value, "0"))
			return true;
	}
	return false;
}
