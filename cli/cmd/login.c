/* husk login, logout: credentials for registries, kept where Docker keeps them (auth.h). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/auth/auth.h"
#include "cli/cli.h"

#define PASSWORD_MAX (16 * KIB)

/* A line, without its end; the caller wipes and frees. */
static int read_line(FILE *in, char **ret)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n = getline(&line, &cap, in);

	if (n < 0) {
		free(line);
		return -EIO;
	}
	line[strcspn(line, "\r\n")] = '\0';
	*ret = line;
	return 0;
}

static int ask_user(const char *server, char **ret, struct err *err)
{
	if (!can_ask())
		return err_set(err, -EINVAL,
			       "no terminal to ask on: use -u USER and --password-stdin");
	fprintf(stderr, "User name for %s: ", server);
	if (read_line(stdin, ret) < 0 || !**ret)
		return err_set(err, -EINVAL, "no user name");
	return 0;
}

/* Without echo. Signals that would end us meanwhile wait until the terminal is as before. */
static int ask_password(char **ret, struct err *err)
{
	struct termios before, quiet;
	sigset_t set, old;
	int r;

	if (!can_ask())
		return err_set(err, -EINVAL, "no terminal to ask on: use --password-stdin");
	fprintf(stderr, "Password: ");
	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return err_errno(err, -errno, "settings of the terminal");
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, &old);
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	r = read_line(stdin, ret);
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	sigprocmask(SIG_SETMASK, &old, NULL);
	fputc('\n', stderr);
	/* ISIG was off, so Ctrl-C is a character in the line. */
	if (r == 0 && strchr(*ret, 3))
		return err_set(err, -EINTR, "interrupted");
	return r < 0 || !**ret ? err_set(err, -EINVAL, "no password") : 0;
}

static int password_from_stdin(char **ret, struct err *err)
{
	size_t len = 0;
	int r = read_fd(STDIN_FILENO, PASSWORD_MAX, ret, &len);

	if (r < 0)
		return err_errno(err, r, "password on standard input");
	while (len && ((*ret)[len - 1] == '\n' || (*ret)[len - 1] == '\r'))
		(*ret)[--len] = '\0';
	return len ? 0 : err_set(err, -EINVAL, "no password on standard input");
}

/* The registry says whether they are right, and may give a token to keep instead. */
static int check(struct cli *c, const char *server, struct auth *a, struct err *err)
{
	Husk__CheckLoginRequest req = HUSK__CHECK_LOGIN_REQUEST__INIT;
	Husk__CheckLoginResponse *resp = NULL;
	Cri__AuthConfig msg;
	int r;

	auth_to_message(a, &msg);
	req.server = (char *)server;
	req.auth = &msg;
	r = husk_call(c, "CheckLogin", &req, POD_TIMEOUT_MS, &resp, err);
	if (r == -EPERM)
		return err_set(err, r, "%s does not take this user name and password", server);
	if (r < 0)
		return err_wrap(err, r, "login to %s", server);
	if (*resp->identity_token) {
		a->identity_token = strdup(resp->identity_token);
		r = a->identity_token ? 0 : err_nomem(err);
	}
	husk__check_login_response__free_unpacked(resp, NULL);
	return r;
}

static int login(struct cli *c, const char *server, const char *user, bool from_stdin,
		 struct err *err)
{
	cleanup_auth struct auth a = { 0 };
	cleanup_free char *where = NULL;
	int r = 0;

	if (!user) {
		r = ask_user(server, &a.username, err);
	} else {
		a.username = strdup(user);
		r = a.username ? 0 : err_nomem(err);
	}
	if (r == 0)
		r = from_stdin ? password_from_stdin(&a.password, err)
			       : ask_password(&a.password, err);
	if (r == 0 && strchr(a.username, ':'))
		r = err_set(err, -EINVAL, "a user name has no ':'");
	if (r == 0)
		r = check(c, server, &a, err);
	if (r == 0)
		r = auth_store(server, &a, &where, err);
	if (r == 0)
		printf("Logged in to %s. The credentials are kept in %s\n", server, where);
	return r;
}

static int login_run(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "username", required_argument, NULL, 'u' },
		{ "password-stdin", no_argument, NULL, 'S' },
		{ "password", required_argument, NULL, 'p' },
		{ 0 },
	};
	cleanup_free char *server = NULL;
	const char *user = NULL;
	bool from_stdin = false;
	struct err err = { 0 };
	int o;

	while ((o = next_option(&cmd_login, argc, argv, ":u:p:", options)) != -1) {
		switch (o) {
		case 'u':
			user = optarg;
			break;
		case 'S':
			from_stdin = true;
			break;
		case 'p':
			return usage_error(
				&cmd_login,
				"a password among the arguments can be read by every user "
				"of this machine; use --password-stdin");
		default:
			return EXIT_USAGE;
		}
	}
	if (argc - optind > 1)
		return usage_error(&cmd_login, "more than one registry given");
	if (from_stdin && str_empty(user))
		return usage_error(&cmd_login, "--password-stdin needs -u USER");
	server = auth_server_of_argument(argv[optind]);
	if (!server)
		return fail_nomem(1);
	return login(c, server, user, from_stdin, &err) < 0 ? fail(1, &err) : 0;
}

const struct command cmd_login = {
	.name = "login",
	.args = "[-u USER] [--password-stdin] [REGISTRY]",
	.summary = "Keep credentials for a registry, after asking it whether they are right",
	.help = "  -u, --username USER   default: ask\n"
		"  --password-stdin      read the password there; default: ask, without echo\n\n"
		"  REGISTRY is a host with an optional port, by default docker.io. Credentials "
		"are\n"
		"  kept as Docker does: in $DOCKER_CONFIG/config.json or ~/.docker/config.json, "
		"or\n"
		"  with the helper that this file names (credsStore, credHelpers). huskd gets "
		"them\n"
		"  with each pull and push, and keeps none.\n",
	.run = login_run,
	.needs_server = true,
};

static int login_run_logout(struct cli *c, int argc, char **argv)
{
	cleanup_free char *server = NULL;
	struct err err = { 0 };

	if (next_option(&cmd_logout, argc, argv, ":", NULL) != -1)
		return EXIT_USAGE;
	if (argc - optind > 1)
		return usage_error(&cmd_logout, "more than one registry given");
	server = auth_server_of_argument(argv[optind]);
	if (!server)
		return fail_nomem(1);
	if (auth_erase(server, &err) < 0)
		return fail(1, &err);
	printf("Credentials for %s are removed\n", server);
	return 0;
}

const struct command cmd_logout = {
	.name = "logout",
	.args = "[REGISTRY]",
	.summary = "Forget the credentials for a registry",
	.help = "  REGISTRY is by default docker.io.\n",
	.run = login_run_logout,
};
