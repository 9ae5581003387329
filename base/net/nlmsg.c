#include "base/net/nlmsg.h"

#include <errno.h>
#include <linux/if_link.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

/* Zeroed, and the padding behind it; NULL: no room. */
static uint8_t *append(struct nlmsg *m, size_t n)
{
	size_t room = NLMSG_ALIGN(n);
	uint8_t *at = m->data + m->len;

	if (m->full || n > NLMSG_MAX || room > NLMSG_MAX - m->len) {
		m->full = true;
		return NULL;
	}
	memset(at, 0, room);
	m->len += room;
	m->head.nlmsg_len = (uint32_t)m->len;
	return at;
}

void nlmsg_begin(struct nlmsg *m, uint16_t type, uint16_t flags, const void *head, size_t n)
{
	uint8_t *at;

	m->len = 0;
	m->full = false;
	(void)append(m, sizeof(m->head));
	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST);
	at = append(m, n);
	if (at && n)
		memcpy(at, head, n);
}

void nlmsg_put(struct nlmsg *m, uint16_t attr, const void *data, size_t n)
{
	struct nlattr a = { .nla_type = attr };
	uint8_t *at = n < NLMSG_MAX ? append(m, sizeof(a) + n) : NULL;

	if (!at) {
		m->full = true;
		return;
	}
	a.nla_len = (uint16_t)(sizeof(a) + n);
	memcpy(at, &a, sizeof(a));
	if (n)
		memcpy(at + sizeof(a), data, n);
}

void nlmsg_put_u32(struct nlmsg *m, uint16_t attr, uint32_t v)
{
	nlmsg_put(m, attr, &v, sizeof(v));
}

void nlmsg_put_str(struct nlmsg *m, uint16_t attr, const char *s)
{
	nlmsg_put(m, attr, s, strlen(s) + 1);
}

size_t nlmsg_nest(struct nlmsg *m, uint16_t attr)
{
	size_t at = m->len;

	nlmsg_put(m, (uint16_t)(attr | NLA_F_NESTED), NULL, 0);
	return at;
}

void nlmsg_end(struct nlmsg *m, size_t nest)
{
	uint16_t len = (uint16_t)(m->len - nest);

	if (!m->full)
		memcpy(m->data + nest + offsetof(struct nlattr, nla_len), &len, sizeof(len));
}

void nlmsg_put_no_address(struct nlmsg *m)
{
	const uint8_t none = IN6_ADDR_GEN_MODE_NONE;
	size_t spec = nlmsg_nest(m, IFLA_AF_SPEC);
	size_t v6 = nlmsg_nest(m, AF_INET6);

	nlmsg_put(m, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
	nlmsg_end(m, v6);
	nlmsg_end(m, spec);
}

/* To the next multiple of four, where there is one. */
static void skip_padding(struct cur *c, size_t n)
{
	size_t pad = NLMSG_ALIGN(n) - n;

	(void)cur_bytes(c, pad < cur_left(c) ? pad : cur_left(c));
}

bool nlmsg_next(struct cur *c, struct nlmsg_view *ret)
{
	struct nlmsghdr h;

	if (cur_left(c) == 0 || !cur_copy(c, &h, sizeof(h)))
		return false;
	if (h.nlmsg_len < sizeof(h)) {
		c->bad = true;
		return false;
	}
	ret->n = h.nlmsg_len - sizeof(h);
	ret->body = cur_bytes(c, ret->n);
	if (!ret->body)
		return false;
	ret->type = h.nlmsg_type;
	ret->flags = h.nlmsg_flags;
	ret->seq = h.nlmsg_seq;
	skip_padding(c, ret->n);
	return true;
}

int nlattrs_read(const uint8_t *p, size_t n, struct nlattr_view *table, size_t max)
{
	struct cur c = cur_of(p, n);
	struct nlattr_view v;
	struct nlattr a;
	unsigned type;

	memset(table, 0, max * sizeof(*table));
	while (cur_left(&c) > 0) {
		if (!cur_copy(&c, &a, sizeof(a)) || a.nla_len < sizeof(a))
			return -EBADMSG;
		v.n = a.nla_len - sizeof(a);
		v.p = cur_bytes(&c, v.n);
		if (!v.p)
			return -EBADMSG;
		skip_padding(&c, v.n);
		type = a.nla_type & NLA_TYPE_MASK;
		if (type < max)
			table[type] = v;
	}
	return 0;
}

bool nlattr_get(const struct nlattr_view *a, void *out, size_t n)
{
	if (!a->p || a->n != n)
		return false;
	memcpy(out, a->p, n);
	return true;
}
