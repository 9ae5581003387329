/* husk-vmm: the monitor of one VM. See ARCHITECTURE.md; the protocol is base/proto/vmm.proto. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/util.h"
#include "vmm/backend/probe.h"
#include "vmm/vm.h"
#include "vmm/vmctl.h"

#define QEMU_ARGS_MAX 32
/* A window and a connection hold a descriptor each, and there are some more. */
#define FILES_WANTED (WINDOWS_MAX + VSOCK_CONNS_MAX + 256)

static const char usage[] =
	"Usage: husk-vmm --control-fd N [OPTION]...\n"
	"       husk-vmm --probe\n"
	"Runs one virtual machine, driven over an inherited control socket. Started by the shim.\n"
	"\n"
	"  --control-fd N         the control socket (AF_UNIX SOCK_SEQPACKET); when its other end\n"
	"                         is closed the VM ends\n"
	"  --backend NAME         auto (default), kvm or qemu\n"
	"  --backend-reason TEXT  why, when the caller has probed already; for people\n"
	"  --kernel FILE          guest kernel, an ELF vmlinux\n"
	"  --initramfs FILE       the guest's /init, a cpio archive\n"
	"  --qemu PATH            default: /usr/bin/qemu-system-x86_64\n"
	"  --qemu-arg ARG         one more argument for QEMU; may be given again\n"
	"  --probe                say as JSON which backends work on this host, and why\n"
	"  --pod ID               whose VM it is; every line of the log carries it\n"
	"  --log-level LEVEL      debug, info (default), warn or error\n"
	"  --log-format FORMAT    text (default) or json\n"
	"  --version, --help\n";

struct options {
	int control_fd;
	enum vm_choice choice;
	const char *backend_reason;	/* NULL = the caller asked for it */
	const char *kernel, *initramfs; /* NULL = default */
	const char *qemu;
	const char *pod; /* NULL = not given */
	char *qemu_args[QEMU_ARGS_MAX + 1];
	unsigned n_qemu_args;
	enum log_level level;
	bool json, probe;
};

static noreturn_fn void bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "husk-vmm: %s%s%s\nTry 'husk-vmm --help'.\n", what, value ? ": " : "",
		value ? value : "");
	exit(2);
}

static void take_option(struct options *o, int c)
{
	uint64_t n;

	switch (c) {
	case 'c':
		if (str_to_u64(optarg, 3, 1 << 20, &n) < 0)
			bad_usage("--control-fd wants a descriptor from 3 on", optarg);
		o->control_fd = (int)n;
		break;
	case 'b':
		if (vm_choice_parse(optarg, &o->choice) < 0)
			bad_usage("--backend wants auto, kvm or qemu", optarg);
		break;
	case 'r':
		o->backend_reason = optarg;
		break;
	case 'k':
		o->kernel = optarg;
		break;
	case 'i':
		o->initramfs = optarg;
		break;
	case 'q':
		o->qemu = optarg;
		break;
	case 'a':
		if (o->n_qemu_args == QEMU_ARGS_MAX)
			bad_usage("too many --qemu-arg", NULL);
		o->qemu_args[o->n_qemu_args++] = optarg;
		break;
	case 'l':
		if (log_level_parse(optarg, &o->level) < 0)
			bad_usage("--log-level wants debug, info, warn or error", optarg);
		break;
	case 'f':
		if (!str_eq(optarg, "text") && !str_eq(optarg, "json"))
			bad_usage("--log-format wants text or json", optarg);
		o->json = str_eq(optarg, "json");
		break;
	case 'P':
		o->pod = optarg;
		break;
	case 'p':
		o->probe = true;
		break;
	case 'v':
		puts("husk-vmm " HUSK_VERSION);
		exit(0);
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		exit(2); /* getopt has said why */
	}
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option table[] = {
		{ "control-fd", required_argument, NULL, 'c' },
		{ "backend", required_argument, NULL, 'b' },
		{ "backend-reason", required_argument, NULL, 'r' },
		{ "kernel", required_argument, NULL, 'k' },
		{ "initramfs", required_argument, NULL, 'i' },
		{ "qemu", required_argument, NULL, 'q' },
		{ "qemu-arg", required_argument, NULL, 'a' },
		{ "log-level", required_argument, NULL, 'l' },
		{ "log-format", required_argument, NULL, 'f' },
		{ "pod", required_argument, NULL, 'P' },
		{ "probe", no_argument, NULL, 'p' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1)
		take_option(o, c);
	if (optind < argc)
		bad_usage("unexpected argument", argv[optind]);
	if (!o->probe && o->control_fd < 0)
		bad_usage("--control-fd is missing", NULL);
}

static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_backend(const char *name, bool usable, const char *reason, const char *fix)
{
	printf("  \"%s\": {\"usable\": %s, \"reason\": ", name, usable ? "true" : "false");
	print_json_string(reason);
	printf(", \"fix\": ");
	print_json_string(fix);
	printf("}");
}

static int print_probe(const struct options *o)
{
	bool qemu = access(o->qemu, X_OK) == 0;
	int error = errno;
	struct probe_result kvm;
	char reason[300];

	probe_kvm(&kvm);
	snprintf(reason, sizeof(reason), "%s: %s", o->qemu, qemu ? "there" : strerror(error));
	printf("{\n");
	print_backend("kvm", kvm.usable, kvm.reason, kvm.fix);
	printf(",\n");
	print_backend("qemu", qemu, reason,
		      qemu ? "" : "install the package qemu-system-x86, or give --qemu");
	printf(",\n  \"auto\": \"%s\"\n}\n", kvm.usable ? "kvm" : qemu ? "qemu" : "");
	return 0;
}

static void main_on_closed(void *arg, int code, const char *why)
{
	if (code < 0)
		log_error("control socket", "err", why);
	loop_stop(arg, code);
}

static void main_on_signal(struct ev_signal *s, int signo)
{
	loop_stop(s->arg, 0);
}

/* Start order: loop, signals, VM, control socket. The end goes the other way. */
static int main_serve(const struct options *o, const struct vm_config *config, struct err *err)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	static struct vm vm;
	struct loop *loop = NULL;
	struct ev_signal sig;
	struct vmctl ctl;
	struct vm_events events = { vmctl_agent_connected, vmctl_ended, vmctl_disk_room, &ctl };
	int r = loop_new(&loop, err);

	if (r < 0)
		return r;
	r = ev_signal_add(loop, &sig, signals, ARRAY_SIZE(signals), main_on_signal, loop, err);
	if (r < 0)
		goto out;
	vm_init(&vm, loop, config, &events);
	r = vmctl_init(&ctl, loop, o->control_fd, &vm, main_on_closed, loop, err);
	if (r == 0) {
		r = loop_run(loop);
		if (r < 0)
			err_errno(err, r, "main loop");
		vmctl_fini(&ctl);
	}
	vm_fini(&vm);
	ev_signal_del(&sig);
out:
	loop_free(loop);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = { .control_fd = -1,
			     .qemu = "/usr/bin/qemu-system-x86_64",
			     .level = LOG_INFO };
	cleanup_free char *kernel = NULL, *initramfs = NULL;
	struct vm_config config = { 0 };
	struct err err = { 0 };
	int r;

	parse_options(&o, argc, argv);
	log_init("husk-vmm", STDERR_FILENO, o.level, o.json);
	log_set_context("pod", o.pod);
	if (o.probe)
		return print_probe(&o);
	r = raise_nofile(FILES_WANTED);
	if (r < 0)
		log_warn("cannot raise the limit of open files", "err", strerror(-r));
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	signal(SIGPIPE, SIG_IGN); /* EPIPE is enough */
	r = program_path(o.kernel, "../share/husk/vmlinux", &kernel, &err);
	if (r == 0)
		r = program_path(o.initramfs, "../share/husk/initramfs.cpio", &initramfs, &err);
	if (r == 0) {
		config = (struct vm_config){
			.choice = o.choice,
			.backend_reason = o.backend_reason,
			.kernel = kernel,
			.initramfs = initramfs,
			.qemu_path = o.qemu,
			.qemu_args = o.qemu_args,
		};
		r = main_serve(&o, &config, &err);
	}
	if (r < 0)
		log_error("husk-vmm ends", "err", err_text(&err));
	return r < 0 ? 1 : 0;
}
