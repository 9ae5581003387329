#include "cri/stream/tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#include <openssl/crypto.h>

#include "base/util.h"

struct entry {
	TAILQ_ENTRY(entry) link;
	struct token token;
	char text[TOKEN_LEN + 1];
	uint64_t ends_ns;
};

struct tokens {
	struct loop *loop;
	TAILQ_HEAD(, entry) list; /* all live equally long: the oldest is the first to end */
	unsigned n;
	struct ev_timer timer;
};

int tokens_new(struct loop *l, struct tokens **ret)
{
	struct tokens *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->loop = l;
	TAILQ_INIT(&t->list);
	*ret = t;
	return 0;
}

static void drop(struct tokens *t, struct entry *e)
{
	TAILQ_REMOVE(&t->list, e, link);
	t->n--;
	OPENSSL_cleanse(e->text, sizeof(e->text));
	free(e);
}

static void expire(struct tokens *t, struct entry *e)
{
	struct token token = e->token;

	drop(t, e);
	token.ops->closed(token.arg);
}

static void tokens_on_timer(struct ev_timer *timer);

static int set_timer(struct tokens *t)
{
	const struct entry *e = TAILQ_FIRST(&t->list);
	uint64_t now = now_mono_ns();

	if (!e) {
		ev_timer_del(&t->timer);
		return 0;
	}
	return ev_timer_add(t->loop, &t->timer, e->ends_ns > now ? e->ends_ns - now : 0,
			    tokens_on_timer, t);
}

static void tokens_on_timer(struct ev_timer *timer)
{
	struct tokens *t = timer->arg;
	uint64_t now = now_mono_ns();
	struct entry *e;

	while ((e = TAILQ_FIRST(&t->list)) && e->ends_ns <= now)
		expire(t, e);
	(void)!set_timer(t); /* one that was just running needs no memory */
}

void tokens_free(struct tokens *t)
{
	struct entry *e;

	if (!t)
		return;
	ev_timer_del(&t->timer);
	while ((e = TAILQ_FIRST(&t->list)))
		expire(t, e);
	free(t);
}

int tokens_add(struct tokens *t, const struct token *token, char ret[TOKEN_LEN + 1])
{
	uint8_t secret[TOKEN_LEN / 2];
	struct entry *e;
	int r;

	if (t->n >= TOKENS_MAX)
		return -ENOBUFS;
	if (getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
		return -EIO;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->token = *token;
	e->ends_ns = now_mono_ns() + TOKEN_LIFE_MS * NS_PER_MS;
	hex_encode(secret, sizeof(secret), e->text);
	TAILQ_INSERT_TAIL(&t->list, e, link);
	t->n++;
	r = set_timer(t);
	if (r < 0) {
		drop(t, e);
		return r;
	}
	memcpy(ret, e->text, sizeof(e->text));
	return 0;
}

struct token *tokens_find(const struct tokens *t, const char *path)
{
	const char *slash = *path == '/' ? strchr(path + 1, '/') : NULL;
	uint64_t now = now_mono_ns();
	struct entry *e;

	if (!slash || strlen(slash + 1) != TOKEN_LEN)
		return NULL;
	TAILQ_FOREACH(e, &t->list, link)
	{
		size_t len = strlen(e->token.kind);

		if (e->ends_ns > now && (size_t)(slash - path - 1) == len &&
		    memcmp(path + 1, e->token.kind, len) == 0 &&
		    CRYPTO_memcmp(slash + 1, e->text, TOKEN_LEN) == 0)
			return &e->token;
	}
	return NULL;
}

void tokens_take(struct tokens *t, struct token *token)
{
	drop(t, container_of(token, struct entry, token));
	(void)!set_timer(t);
}
