#include "image/job/login.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "image/credentials.h"
#include "image/job/fetcher.h"
#include "image/job/jobs.h"
#include "image/reference.h"

#define PING_ID 1u

struct image_login {
	struct job job;
	struct credentials credentials;
	struct fetcher *fetcher;
	image_login_done_fn done;
	void *arg;
};

static void login_free(struct image_login *l)
{
	fetcher_free(l->fetcher);
	credentials_fini(&l->credentials);
	free(l);
}

void image_login_cancel(struct image_login *l)
{
	job_remove(&l->job);
	login_free(l);
}

static void login_end(struct image_login *l, int code, const struct err *why)
{
	image_login_done_fn done = l->done;
	struct err err = { 0 };
	void *arg = l->arg;

	if (code < 0)
		err = *why;
	job_remove(&l->job);
	login_free(l);
	done(arg, code, &err);
}

static void login_on_ping(void *arg, uint32_t id, uint64_t fetched)
{
	login_end(arg, 0, NULL);
}

static void login_on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	login_end(arg, code, err);
}

static void login_on_stop(struct job *j, const struct err *why)
{
	login_end(container_of(j, struct image_login, job), why->code, why);
}

static const struct fetcher_ops login_ops = {
	.done = login_on_ping,
	.error = login_on_error,
};

int login_new(struct jobs *js, const char *server, const struct image_auth *auth,
	      image_login_done_fn done, void *arg, struct image_login **ret, struct err *err)
{
	struct image_login *l = calloc(1, sizeof(*l));
	cleanup_free char *name = str_fmt("%s/x/y", server);
	struct reference ref;
	int r;

	if (!l || !name) {
		free(l);
		return err_nomem(err);
	}
	l->done = done;
	l->arg = arg;
	r = reference_parse(name, &ref, err);
	if (r < 0 || !str_eq(ref.host, server))
		r = err_set(err, -EINVAL, "'%.100s' is no registry's host name", server);
	else
		r = fetcher_open(&js->procs, &js->fetcher_config, server, auth, &l->credentials,
				 &login_ops, l, &l->fetcher, err);
	if (r == 0)
		r = fetcher_ping(l->fetcher, PING_ID, err);
	if (r < 0) {
		login_free(l);
		return r;
	}
	job_add(js, &l->job, JOB_LOGIN, login_on_stop);
	*ret = l;
	return 0;
}
