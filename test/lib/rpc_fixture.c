#include "test/lib/rpc_fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "test/lib/unit.h"

static void *serve(void *arg)
{
	struct rpc_fixture *f = arg;
	struct rpc_server *server;
	int fd;

	if (loop_new(&f->loop, NULL) < 0)
		abort();
	if (f->begin)
		f->begin(f);
	if (rpc_server_new(f->loop, f->services, f->n_services, &server, NULL) < 0 ||
	    unix_listen(f->address, 0660, &fd, NULL) < 0 || rpc_server_listen(server, fd, NULL) < 0)
		abort();
	(void)!write(f->ready[1], "", 1);
	(void)!loop_run(f->loop);
	rpc_server_free(server);
	if (f->end)
		f->end(f);
	loop_free(f->loop);
	return NULL;
}

void rpc_fixture_start(struct rpc_fixture *f, const struct rpc_service *services, size_t n)
{
	int fd;
	char c;

	log_init("test", STDERR_FILENO, LOG_ERROR, false);
	f->services = services;
	f->n_services = n;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/husk-grpc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->path, sizeof(f->path), "%s/s.sock", f->dir);
	(void)snprintf(f->address, sizeof(f->address), "unix://%s", f->path);
	assert_int_equal(unix_listen(f->address, 0600, &fd, NULL), 0);
	(void)close(fd);
	assert_int_equal(pipe(f->ready), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
	assert_int_equal(read(f->ready[0], &c, 1), 1);
}

static void stop(void *arg)
{
	loop_stop(arg, 0);
}

int rpc_fixture_stop(struct rpc_fixture *f)
{
	assert_int_equal(loop_post(f->loop, stop, f->loop), 0);
	assert_int_equal(pthread_join(f->thread, NULL), 0);
	(void)close(f->ready[0]);
	(void)close(f->ready[1]);
	return remove_tree(f->dir, NULL);
}
