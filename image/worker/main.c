/* husk-image-worker (worker.h). Started by huskd only, and says so to people. */
#include <errno.h>
#include <stdio.h>

#include "base/util.h"
#include "image/worker/confine.h"
#include "image/worker/worker.h"

/* Takes `--uid N` away. */
static int take_uid(int *argc, char ***argv)
{
	uint64_t uid = 0;

	if (*argc < 2 || !str_eq((*argv)[1], "--uid"))
		return 0;
	if (*argc < 3 || str_to_u64((*argv)[2], 1, UINT32_MAX - 1, &uid) < 0)
		return -EINVAL;
	confine_set_uid((uid_t)uid);
	*argc -= 2;
	*argv += 2;
	return 0;
}

/* For `husk check`: what of the kernel confines fetch here. */
static int print_probe(void)
{
	printf("{\"landlock\": %d}\n", confine_landlock_abi());
	return 0;
}

int main(int argc, char **argv)
{
	int r = take_uid(&argc, &argv);

	if (r < 0)
		argc = 1;
	if (argc == 2 && str_eq(argv[1], "--probe"))
		return print_probe();
	if (argc >= 2 && str_eq(argv[1], "unpack"))
		return worker_unpack(argc - 2, argv + 2);
	if (argc == 4 && str_eq(argv[1], "inherit"))
		return worker_inherit(argv[2], argv[3]);
	if ((argc == 3 || (argc == 4 && str_eq(argv[3], "idle"))) && str_eq(argv[1], "check"))
		return worker_check(argv[2], argc == 4);
	if (argc == 2 && str_eq(argv[1], "fetch"))
		return worker_fetch();
	if (argc == 2 && str_eq(argv[1], "archive"))
		return worker_archive();
	if (argc == 2 && str_eq(argv[1], "--version")) {
		puts("husk-image-worker " HUSK_VERSION);
		return 0;
	}
	fputs("husk-image-worker is started by huskd to pull images; it has no use by hand.\n"
	      "usage: husk-image-worker --probe | [--uid N] fetch | unpack --layers KIND[,..] --id "
	      "DIGEST\n",
	      stderr);
	return 2;
}
