#include "agent/proc/user.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "agent/rootfs/path.h"
#include "base/util.h"

#define PASSWD_FIELDS 7		/* name:password:uid:gid:gecos:home:shell */
#define GROUP_FIELDS 4		/* name:password:gid:member,member */
#define ID_MAX (UINT32_MAX - 1) /* (uid_t)-1 is not an id */

/* A piece of a file, not terminated. */
struct span {
	const char *p;
	size_t n;
};

static bool span_is(struct span s, const char *str)
{
	size_t n = strlen(str);

	return s.n == n && memcmp(s.p, str, n) == 0;
}

static bool span_id(struct span s, uint32_t *ret)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 10)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	if (v > ID_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* Cuts the piece before the next `sep` off `s`. False at the end. */
static bool span_cut(struct span *s, char sep, struct span *ret)
{
	const char *e;

	if (!s->p)
		return false;
	e = s->n ? memchr(s->p, sep, s->n) : NULL;
	ret->p = s->p;
	ret->n = e ? (size_t)(e - s->p) : s->n;
	if (e) {
		s->p += ret->n + 1;
		s->n -= ret->n + 1;
	} else {
		*s = (struct span){ 0 };
	}
	return true;
}

/* The next line that has all its fields; comments and broken lines are skipped, as getpwent does.
 */
static bool next_entry(struct span *file, struct span *fields, size_t want)
{
	struct span line;

	while (span_cut(file, '\n', &line)) {
		size_t n = 0;

		if (line.n == 0 || line.p[0] == '#' || line.p[0] == '+' || line.p[0] == '-')
			continue;
		while (n < want && span_cut(&line, ':', &fields[n]))
			n++;
		if (n == want || (want == GROUP_FIELDS && n == GROUP_FIELDS - 1)) {
			if (n < want)
				fields[n] = (struct span){ 0 };
			return true;
		}
	}
	return false;
}

static int add_group(struct user *u, gid_t gid, struct err *err)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return 0;
	if (u->n_groups == PROCESS_GROUPS_MAX)
		return err_set(err, -E2BIG, "user: more than %u groups", PROCESS_GROUPS_MAX);
	u->groups[u->n_groups++] = gid;
	return 0;
}

/* Fills uid, gid, home from the first entry for `name`, or for `id` where name is NULL. */
static bool find_user(struct span passwd, const char *name, const uint32_t *id, struct user *u,
		      struct span *ret_name)
{
	struct span f[PASSWD_FIELDS];

	while (next_entry(&passwd, f, PASSWD_FIELDS)) {
		uint32_t uid, gid;

		if (!span_id(f[2], &uid) || !span_id(f[3], &gid))
			continue;
		if (name ? !span_is(f[0], name) : uid != *id)
			continue;
		u->uid = uid;
		u->gid = gid;
		if (f[5].n > 0 && f[5].n < sizeof(u->home) && f[5].p[0] == '/' &&
		    !memchr(f[5].p, '\0', f[5].n)) {
			memcpy(u->home, f[5].p, f[5].n);
			u->home[f[5].n] = '\0';
		}
		*ret_name = f[0];
		return true;
	}
	return false;
}

static bool has_member(struct span members, struct span name)
{
	struct span m;

	while (span_cut(&members, ',', &m))
		if (m.n == name.n && m.n > 0 && memcmp(m.p, name.p, m.n) == 0)
			return true;
	return false;
}

static int join_groups(struct span group, struct span name, struct user *u, struct err *err)
{
	struct span f[GROUP_FIELDS];
	uint32_t gid;
	int r = 0;

	while (r == 0 && next_entry(&group, f, GROUP_FIELDS))
		if (span_id(f[2], &gid) && has_member(f[3], name))
			r = add_group(u, gid, err);
	return r;
}

static int find_group(struct span group, const char *name, gid_t *ret, struct err *err)
{
	struct span f[GROUP_FIELDS], want = { name, strlen(name) };
	uint32_t gid;

	while (next_entry(&group, f, GROUP_FIELDS)) {
		if (span_is(f[0], name) && span_id(f[2], &gid)) {
			*ret = gid;
			return 0;
		}
	}
	if (!span_id(want, &gid))
		return err_set(err, -ENOENT, "no group \"%s\" in /etc/group", name);
	*ret = gid;
	return 0;
}

/* spec = "user[:group]", both a name or a number. */
static int by_spec(const char *spec, struct span passwd, struct span group, bool join,
		   struct user *u, struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	const char *colon = strchr(spec, ':');
	size_t n = colon ? (size_t)(colon - spec) : strlen(spec);
	struct span found = { 0 };
	uint32_t id;

	if (n >= sizeof(name))
		return err_set(err, -EINVAL, "user name: longer than %u bytes", AGENT_NAME_MAX);
	memcpy(name, spec, n);
	name[n] = '\0';
	if (n == 0) {
		if (!colon || colon[1] == '\0')
			return err_set(err, -EINVAL, "user name: empty");
		id = 0;
		(void)find_user(passwd, NULL, &id, u, &found);
	} else if (!find_user(passwd, name, NULL, u, &found)) {
		if (!span_id((struct span){ name, n }, &id))
			return err_set(err, -ENOENT, "no user \"%s\" in /etc/passwd", name);
		u->uid = id;
		(void)find_user(passwd, NULL, &id, u, &found);
	}
	if (colon && colon[1] != '\0') {
		int r = find_group(group, colon + 1, &u->gid, err);

		if (r < 0)
			return r;
	}
	return found.n && join ? join_groups(group, found, u, err) : 0;
}

int user_resolve(const Agent__User *u, const char *passwd, size_t passwd_len, const char *group,
		 size_t group_len, struct user *ret, struct err *err)
{
	struct span pw = { passwd, passwd_len }, gr = { group, group_len }, found = { 0 };
	uid_t uid;
	gid_t gid;
	int r = 0;

	ret->uid = u ? u->uid : 0;
	ret->gid = u ? u->gid : 0;
	ret->n_groups = 0;
	ret->home[0] = '/';
	ret->home[1] = '\0';
	for (size_t i = 0; u && r == 0 && i < u->n_additional_gids; i++)
		r = add_group(ret, u->additional_gids[i], err);
	if (r < 0)
		return r;
	if (u && !str_empty(u->name)) {
		r = by_spec(u->name, pw, gr, !u->strict_groups, ret, err);
		return r == 0 ? add_group(ret, ret->gid, err) : r;
	}
	/* Numbers were given: /etc/passwd only knows the home directory. */
	uid = ret->uid;
	gid = ret->gid;
	(void)find_user(pw, NULL, &uid, ret, &found);
	ret->uid = uid;
	ret->gid = gid;
	return 0;
}

static int read_db(int root, const char *path, char **ret, size_t *ret_len, struct err *err)
{
	int r = path_read(root, path, AGENT_PASSWD_MAX, ret, ret_len);

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0; /* an image without users: numbers still work */
	return r < 0 ? err_errno(err, r, "%s", path) : 0;
}

int user_lookup(int root, const Agent__User *u, struct user *ret, struct err *err)
{
	cleanup_free char *passwd = NULL;
	cleanup_free char *group = NULL;
	size_t passwd_len = 0, group_len = 0;
	int r = read_db(root, "/etc/passwd", &passwd, &passwd_len, err);

	if (r == 0 && u && !str_empty(u->name))
		r = read_db(root, "/etc/group", &group, &group_len, err);
	if (r < 0)
		return r;
	return user_resolve(u, passwd, passwd_len, group, group_len, ret, err);
}
