#include "cli/out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define GAP 3

/* ---- tables ---- */

static void add(struct table *t, char *owned)
{
	char **more;

	if (t->n_cells == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 64;

		more = reallocarray(t->cells, cap, sizeof(*more));
		if (!more) {
			t->failed = true;
			free(owned);
			return;
		}
		t->cells = more;
		t->cap = cap;
	}
	t->failed |= !owned;
	t->cells[t->n_cells++] = owned;
}

void table_init(struct table *t, const char *headings)
{
	*t = (struct table){ 0 };
	for (const char *p = headings; *p && t->n_columns < TABLE_MAX_COLUMNS;) {
		size_t n;

		t->right[t->n_columns] = *p == '>';
		p += *p == '>';
		n = strcspn(p, "|");
		add(t, strndup(p, n));
		t->n_columns++;
		p += n + (p[n] == '|');
	}
}

void table_cell(struct table *t, const char *text)
{
	add(t, strdup(text));
}

void table_cellf(struct table *t, const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	add(t, s);
}

static void print_row(const struct table *t, char *const *row, const int *width)
{
	for (size_t c = 0; c < t->n_columns; c++) {
		bool last = c + 1 == t->n_columns;

		if (t->right[c])
			printf("%*s", width[c], row[c]);
		else
			printf("%-*s", last ? 0 : width[c], row[c]);
		printf("%*s", last ? 0 : GAP, "");
	}
	putchar('\n');
}

bool table_print(struct table *t)
{
	int width[TABLE_MAX_COLUMNS] = { 0 };
	bool ok = !t->failed;

	for (size_t k = 0; ok && k < t->n_cells; k++)
		width[k % t->n_columns] =
			MAX_OF(width[k % t->n_columns], (int)MIN_OF(strlen(t->cells[k]), 4096u));
	for (size_t k = 0; ok && k + t->n_columns <= t->n_cells; k += t->n_columns)
		print_row(t, t->cells + k, width);
	for (size_t k = 0; k < t->n_cells; k++)
		free(t->cells[k]);
	free(t->cells);
	*t = (struct table){ 0 };
	if (!ok)
		fprintf(stderr, "husk: out of memory\n");
	return ok;
}

/* ---- JSON ---- */

int print_json(json_t *j, bool pretty)
{
	char *text =
		j ? json_dumps(j, (pretty ? JSON_INDENT(2) : JSON_COMPACT) | JSON_REAL_PRECISION(6))
		  : NULL;

	json_decref(j);
	if (!text) {
		fprintf(stderr, "husk: the answer cannot be written as JSON\n");
		return 1;
	}
	puts(text);
	/* Lines of progress are read while they come. */
	fflush(stdout);
	free(text);
	return 0;
}

json_t *json_strings(char *const *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < n; i++)
		(void)json_array_append_new(a, json_string(v[i]));
	return a;
}

/* ---- texts ---- */

const char *id_text(const char *id, bool whole, char buf[SHORT_ID + 1])
{
	if (whole)
		return id;
	(void)snprintf(buf, SHORT_ID + 1, "%s", str_starts(id, "sha256:") ? id + 7 : id);
	return buf;
}

const char *familiar_name(const char *name)
{
	if (str_starts(name, "docker.io/library/"))
		return name + strlen("docker.io/library/");
	return str_starts(name, "docker.io/") ? name + strlen("docker.io/") : name;
}

const char *time_text(int64_t ns, char buf[40])
{
	time_t s = (time_t)(ns / (int64_t)NS_PER_S);
	struct tm tm;

	*buf = '\0';
	if (ns > 0 && gmtime_r(&s, &tm))
		(void)strftime(buf, 40, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return buf;
}

int64_t time_parse(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int hours, minutes;
	time_t s;

	if (!rest)
		return 0;
	s = timegm(&tm);
	rest += strspn(rest, ".0123456789");
	if ((*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2)
		s -= (*rest == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
	/* Tools that want the same bytes each time write year 1 or 1970. */
	return s <= 86400 || s > INT64_MAX / (int64_t)NS_PER_S ? 0 : (int64_t)s * (int64_t)NS_PER_S;
}

const char *human_age(int64_t then_ns, char buf[32])
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = { { 365 * 86400, "year" }, { 30 * 86400, "month" }, { 7 * 86400, "week" },
		      { 86400, "day" },	       { 3600, "hour" },	{ 60, "minute" },
		      { 1, "second" } };
	int64_t s = (now_real_ns() - then_ns) / (int64_t)NS_PER_S, n;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		n = s / units[i].seconds;
		if (n < 1)
			continue;
		(void)snprintf(buf, 32, "%lld %s%s ago", (long long)n, units[i].name,
			       n == 1 ? "" : "s");
		return buf;
	}
	(void)snprintf(buf, 32, "just now");
	return buf;
}

const char *human_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1000 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1000;
		u++;
	}
	(void)snprintf(buf, 32, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return buf;
}

/* ---- questions ---- */

bool can_ask(void)
{
	return isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
}

bool ask_yes(const char *question)
{
	char line[16];

	if (!can_ask())
		return false;
	fprintf(stderr, "%s [y/N] ", question);
	return fgets(line, sizeof(line), stdin) && (*line == 'y' || *line == 'Y');
}
