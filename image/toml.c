#include "image/toml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"

struct parser {
	const char *p, *end, *name;
	unsigned line, values;
	struct err *err;
};

static int fail(struct parser *s, const char *why)
{
	return err_set(s->err, -EINVAL, "%s:%u: %s", s->name, s->line, why);
}

/* ---- the tree ---- */

void toml_free(struct toml *t)
{
	while (t) {
		struct toml *next = t->next;

		toml_free(t->first);
		free(t->key);
		free(t->text);
		free(t);
		t = next;
	}
}

void toml_freep(struct toml **t)
{
	toml_free(*t);
}

static struct toml *find(const struct toml *table, const char *key)
{
	for (struct toml *t = table->first; t; t = t->next)
		if (str_eq(t->key, key))
			return t;
	return NULL;
}

const struct toml *toml_get(const struct toml *table, const char *key)
{
	return table && table->kind == TOML_TABLE ? find(table, key) : NULL;
}

static int node_new(struct parser *s, enum toml_kind kind, struct toml **ret)
{
	struct toml *t;

	if (++s->values > TOML_MAX_VALUES)
		return err_set(s->err, -EFBIG, "%s: more than %u values", s->name, TOML_MAX_VALUES);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_nomem(s->err);
	t->kind = kind;
	t->line = s->line;
	*ret = t;
	return 0;
}

static void append(struct toml *to, struct toml *t)
{
	if (to->last)
		to->last->next = t;
	else
		to->first = t;
	to->last = t;
}

/* ---- characters ---- */

static char peek(const struct parser *s)
{
	return s->p < s->end ? *s->p : 0;
}

static bool starts(const struct parser *s, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(s->end - s->p) >= n && !memcmp(s->p, word, n);
}

static void skip_blanks(struct parser *s)
{
	while (peek(s) == ' ' || peek(s) == '\t')
		s->p++;
}

static bool is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static bool at_newline(const struct parser *s)
{
	return peek(s) == '\n' || starts(s, "\r\n");
}

static void take_newline(struct parser *s)
{
	s->p += *s->p == '\r' ? 2 : 1;
	s->line++;
}

static int skip_comment(struct parser *s)
{
	if (peek(s) != '#')
		return 0;
	for (; s->p < s->end && !at_newline(s); s->p++)
		if (is_control(*s->p))
			return fail(s, "control character in a comment");
	return 0;
}

/* Blanks, a comment, and the end of the line or of the text. */
static int end_of_line(struct parser *s)
{
	int r;

	skip_blanks(s);
	r = skip_comment(s);
	if (r < 0)
		return r;
	if (s->p == s->end)
		return 0;
	if (!at_newline(s))
		return fail(s, "something after the value");
	take_newline(s);
	return 0;
}

/* Blanks, newlines and comments: between things, and inside of arrays. */
static int skip_space(struct parser *s)
{
	for (;;) {
		int r;

		skip_blanks(s);
		r = skip_comment(s);
		if (r < 0)
			return r;
		if (s->p == s->end || !at_newline(s))
			return 0;
		take_newline(s);
	}
}

/* ---- strings ---- */

static int put(struct parser *s, struct buf *b, const void *data, size_t n)
{
	return buf_put(b, data, n) < 0 ? err_nomem(s->err) : 0;
}

static int put_code_point(struct parser *s, struct buf *b, unsigned digits)
{
	char hex[9] = "", out[4];
	uint32_t c;
	size_t n;

	if ((size_t)(s->end - s->p) < digits)
		return fail(s, "bad escape");
	memcpy(hex, s->p, digits);
	if (strspn(hex, "0123456789abcdefABCDEF") != digits)
		return fail(s, "bad escape");
	c = (uint32_t)strtoul(hex, NULL, 16);
	if (!c || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return fail(s, "an escape that is no character");
	s->p += digits;
	if (c < 0x80) {
		out[0] = (char)c;
		n = 1;
	} else if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		n = 2;
	} else if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		n = 3;
	} else {
		out[0] = (char)(0xf0 | c >> 18);
		n = 4;
	}
	for (size_t k = 1; k < n; k++)
		out[k] = (char)(0x80 | (c >> 6 * (n - 1 - k) & 0x3f));
	return put(s, b, out, n);
}

/* After a backslash. */
static int put_escape(struct parser *s, struct buf *b, bool multi)
{
	static const char from[] = "btnfre\"\\", to[] = "\b\t\n\f\r\033\"\\";
	char c = peek(s);
	const char *at = c ? strchr(from, c) : NULL;

	if (at) {
		s->p++;
		return put(s, b, &to[at - from], 1);
	}
	if (c == 'u' || c == 'U') {
		s->p++;
		return put_code_point(s, b, c == 'u' ? 4 : 8);
	}
	/* A line's end after a backslash: it and all white space after it are nothing. */
	skip_blanks(s);
	if (!multi || !at_newline(s))
		return fail(s, "bad escape");
	while (peek(s) == ' ' || peek(s) == '\t' || at_newline(s)) {
		if (at_newline(s))
			take_newline(s);
		else
			s->p++;
	}
	return 0;
}

/* The three quotes that end a text, after up to two that belong to it: 1; 0: not the end. */
static int multi_ends(struct parser *s, struct buf *b, char quote)
{
	size_t n = 0;
	int r;

	while (n < 5 && s->p + n < s->end && s->p[n] == quote)
		n++;
	if (n < 3)
		return 0;
	r = put(s, b, s->p, n - 3);
	s->p += n;
	return r < 0 ? r : 1;
}

static int string_body(struct parser *s, struct buf *b, char quote, bool multi)
{
	int r = 0;

	if (multi && at_newline(s))
		take_newline(s);
	while (r == 0) {
		if (s->p == s->end || (!multi && at_newline(s)))
			return fail(s, "a text without its end");
		if (*s->p == quote) {
			if (!multi) {
				s->p++;
				return 0;
			}
			r = multi_ends(s, b, quote);
			if (r)
				return r < 0 ? r : 0;
		}
		if (*s->p == '\\' && quote == '"') {
			s->p++;
			r = put_escape(s, b, multi);
		} else if (multi && at_newline(s)) {
			take_newline(s);
			r = put(s, b, "\n", 1);
		} else if (is_control(*s->p)) {
			return fail(s, "control character in a text");
		} else {
			r = put(s, b, s->p++, 1);
		}
	}
	return r;
}

/* "..", '..', """..""" or '''..''' */
static int parse_string(struct parser *s, bool may_be_multi, char **ret)
{
	char quote = *s->p, three[4] = { quote, quote, quote, 0 };
	bool multi = may_be_multi && starts(s, three);
	cleanup_buf struct buf b;
	int r;

	buf_init(&b, (size_t)(s->end - s->p) + 1);
	s->p += multi ? 3 : 1;
	r = string_body(s, &b, quote, multi);
	if (r < 0)
		return r;
	*ret = buf_len(&b) ? buf_take_str(&b) : strdup("");
	return *ret ? 0 : err_nomem(s->err);
}

/* ---- keys ---- */

static bool bare(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static int simple_key(struct parser *s, char **ret)
{
	const char *start = s->p;

	if (peek(s) == '"' || peek(s) == '\'')
		return parse_string(s, false, ret);
	while (s->p < s->end && bare(*s->p))
		s->p++;
	if (s->p == start)
		return fail(s, "expected a key");
	*ret = strndup(start, (size_t)(s->p - start));
	return *ret ? 0 : err_nomem(s->err);
}

/* The table `key` of `at`, made when it is not there. Of an array of tables, the last one. */
static int descend(struct parser *s, struct toml **at, char **key, bool dotted)
{
	struct toml *t = find(*at, *key);
	int r;

	if (!t) {
		r = node_new(s, TOML_TABLE, &t);
		if (r < 0)
			return r;
		t->origin = dotted ? TOML_DOTTED : TOML_IMPLICIT;
		t->key = take_ptr(key);
		append(*at, t);
	} else if (t->kind == TOML_ARRAY && t->origin == TOML_HEADER && !dotted) {
		t = t->last;
	} else if (t->kind != TOML_TABLE || t->origin == TOML_CLOSED ||
		   (dotted && t->origin != TOML_DOTTED)) {
		return fail(s, "this is defined already, as something else");
	}
	*at = t;
	return 0;
}

/* a.b.c: *at becomes the table of c, *ret_key is "c". */
static int dotted_key(struct parser *s, struct toml **at, char **ret_key, bool in_value)
{
	cleanup_free char *key = NULL;

	for (unsigned depth = 0; depth < TOML_MAX_DEPTH; depth++) {
		int r = simple_key(s, &key);

		if (r < 0)
			return r;
		skip_blanks(s);
		if (peek(s) != '.') {
			*ret_key = take_ptr(&key);
			return 0;
		}
		s->p++;
		skip_blanks(s);
		r = descend(s, at, &key, in_value);
		if (r < 0)
			return r;
		free(take_ptr(&key));
	}
	return fail(s, "nested too deep");
}

/* ---- values ---- */

static int value(struct parser *s, unsigned depth, struct toml **ret);

static int key_value(struct parser *s, struct toml *table, unsigned depth)
{
	cleanup_free char *key = NULL;
	struct toml *v = NULL;
	int r = dotted_key(s, &table, &key, true);

	if (r < 0)
		return r;
	if (find(table, key))
		return fail(s, "this key is there already");
	if (peek(s) != '=')
		return fail(s, "expected \"=\" after the key");
	s->p++;
	skip_blanks(s);
	r = value(s, depth, &v);
	if (r < 0)
		return r;
	v->key = take_ptr(&key);
	append(table, v);
	return 0;
}

static int array_items(struct parser *s, struct toml *t, unsigned depth)
{
	s->p++;
	for (;;) {
		struct toml *v = NULL;
		int r = skip_space(s);

		if (r == 0 && peek(s) == ']') {
			s->p++;
			return 0;
		}
		if (r == 0)
			r = value(s, depth + 1, &v);
		if (r < 0)
			return r;
		append(t, v);
		r = skip_space(s);
		if (r < 0)
			return r;
		if (peek(s) == ',')
			s->p++;
		else if (peek(s) != ']')
			return fail(s, "expected \",\" or \"]\" in the array");
	}
}

static void close_tables(struct toml *t)
{
	t->origin = TOML_CLOSED;
	for (struct toml *c = t->first; c; c = c->next)
		if (c->kind == TOML_TABLE && c->origin != TOML_CLOSED)
			close_tables(c);
}

static int inline_items(struct parser *s, struct toml *t, unsigned depth)
{
	s->p++;
	skip_blanks(s);
	if (peek(s) == '}') {
		s->p++;
		return 0;
	}
	for (;;) {
		int r;

		skip_blanks(s);
		r = key_value(s, t, depth + 1);
		if (r < 0)
			return r;
		skip_blanks(s);
		if (peek(s) == '}') {
			s->p++;
			return 0;
		}
		if (peek(s) != ',')
			return fail(s, "expected \",\" or \"}\" in the table");
		s->p++;
	}
}

/* Digits with single "_" between digits, copied without them. */
static int parse_digits(struct parser *s, char *out, size_t max)
{
	const char *start = s->p;
	size_t n = 0;

	for (; s->p < s->end && (bare(*s->p) || *s->p == '+' || *s->p == '.'); s->p++) {
		bool inner = s->p > start && s->p + 1 < s->end && bare(s->p[-1]) &&
			     s->p[-1] != '_' && bare(s->p[1]);

		if (*s->p == '_' && !inner)
			return fail(s, "bad number");
		if (*s->p == '_')
			continue;
		if (n + 1 >= max)
			return fail(s, "number too long");
		out[n++] = *s->p;
	}
	out[n] = 0;
	return 0;
}

static int number(struct parser *s, struct toml *t)
{
	char text[64], *end, *body = text;
	int base = 10, r = parse_digits(s, text, sizeof(text));
	bool sign;

	if (r < 0)
		return r;
	if (peek(s) == ':' || (strlen(text) >= 10 && text[4] == '-' && text[7] == '-'))
		return fail(s, "dates and times are not supported");
	sign = *text == '+' || *text == '-';
	body += sign;
	if (*body < '0' || *body > '9')
		return fail(s, "expected a value");
	if (*body == '0' && body[1] && strchr("xob", body[1]) && !sign) {
		base = body[1] == 'x' ? 16 : body[1] == 'o' ? 8 : 2;
		body += 2;
		if (!*body || strchr("+-", *body))
			return fail(s, "bad number");
	} else if (*body == '0' && body[1] >= '0' && body[1] <= '9') {
		return fail(s, "a number with a leading zero");
	}
	errno = 0;
	t->integer = strtoll(base == 10 ? text : body, &end, base);
	if (!*end && !errno)
		return 0;
	if (base != 10 || errno || text[strspn(text, "0123456789+-.eE")])
		return fail(s, "bad number");
	t->kind = TOML_FLOAT;
	t->number = strtod(text, &end);
	if (*end || end[-1] == '.' || !isfinite(t->number) || strstr(text, ".e") ||
	    strstr(text, ".E"))
		return fail(s, "bad number");
	return 0;
}

static bool take_word(struct parser *s, const char *word)
{
	size_t n = strlen(word);

	if (!starts(s, word) || (s->p + n < s->end && bare(s->p[n])))
		return false;
	s->p += n;
	return true;
}

static int value_of(struct parser *s, unsigned depth, struct toml *t)
{
	int r;

	switch (peek(s)) {
	case '"':
	case '\'':
		t->kind = TOML_STRING;
		return parse_string(s, true, &t->text);
	case '[':
		t->kind = TOML_ARRAY;
		t->origin = TOML_CLOSED;
		return array_items(s, t, depth);
	case '{':
		t->kind = TOML_TABLE;
		t->origin = TOML_HEADER; /* dotted keys may not extend it, others are new */
		r = inline_items(s, t, depth);
		close_tables(t);
		return r;
	}
	if (take_word(s, "true") || take_word(s, "false")) {
		t->kind = TOML_BOOL;
		t->truth = s->p[-2] == 'u';
		return 0;
	}
	return number(s, t);
}

static int value(struct parser *s, unsigned depth, struct toml **ret)
{
	struct toml *t = NULL;
	int r;

	if (depth >= TOML_MAX_DEPTH)
		return fail(s, "nested too deep");
	r = node_new(s, TOML_INTEGER, &t);
	if (r < 0)
		return r;
	r = value_of(s, depth, t);
	if (r < 0) {
		toml_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

/* ---- tables ---- */

static int array_header(struct parser *s, struct toml *in, char **key, struct toml **at)
{
	struct toml *a = find(in, *key), *t;
	int r;

	if (a && (a->kind != TOML_ARRAY || a->origin != TOML_HEADER))
		return fail(s, "this is defined already, as something else");
	if (!a) {
		r = node_new(s, TOML_ARRAY, &a);
		if (r < 0)
			return r;
		a->origin = TOML_HEADER;
		a->key = take_ptr(key);
		append(in, a);
	}
	r = node_new(s, TOML_TABLE, &t);
	if (r < 0)
		return r;
	t->origin = TOML_HEADER;
	append(a, t);
	*at = t;
	return 0;
}

static int table_header(struct parser *s, struct toml *in, char **key, struct toml **at)
{
	struct toml *t = find(in, *key);
	int r;

	if (t && (t->kind != TOML_TABLE || t->origin != TOML_IMPLICIT))
		return fail(s, "this table is defined already");
	if (!t) {
		r = node_new(s, TOML_TABLE, &t);
		if (r < 0)
			return r;
		t->key = take_ptr(key);
		append(in, t);
	}
	t->origin = TOML_HEADER;
	*at = t;
	return 0;
}

/* [a.b] or [[a.b]] */
static int header(struct parser *s, struct toml *root, struct toml **at)
{
	bool array = starts(s, "[[");
	cleanup_free char *key = NULL;
	struct toml *in = root;
	int r;

	s->p += array ? 2 : 1;
	skip_blanks(s);
	r = dotted_key(s, &in, &key, false);
	if (r < 0)
		return r;
	if (!starts(s, array ? "]]" : "]"))
		return fail(s, "a table's name without its end");
	s->p += array ? 2 : 1;
	r = array ? array_header(s, in, &key, at) : table_header(s, in, &key, at);
	return r < 0 ? r : end_of_line(s);
}

int toml_parse(const char *text, size_t len, const char *name, struct toml **ret, struct err *err)
{
	struct parser s = { .p = text, .end = text + len, .name = name, .line = 1, .err = err };
	cleanup_toml struct toml *root = NULL;
	struct toml *at;
	int r = node_new(&s, TOML_TABLE, &root);

	if (r < 0)
		return r;
	root->origin = TOML_HEADER;
	at = root;
	if (starts(&s, "\xef\xbb\xbf"))
		s.p += 3;
	for (;;) {
		r = skip_space(&s);
		if (r < 0)
			return r;
		if (s.p == s.end)
			break;
		if (*s.p == '[') {
			r = header(&s, root, &at);
		} else {
			r = key_value(&s, at, 0);
			if (r == 0)
				r = end_of_line(&s);
		}
		if (r < 0)
			return r;
	}
	*ret = take_ptr(&root);
	return 0;
}
