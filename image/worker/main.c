/* husk-image-worker (worker.h). Started by huskd only, and says so to people. */
#include <stdio.h>

#include "base/util.h"
#include "image/worker/worker.h"

int main(int argc, char **argv)
{
	if (argc >= 2 && str_eq(argv[1], "unpack"))
		return worker_unpack(argc - 2, argv + 2);
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
	      "usage: husk-image-worker fetch | unpack --layers KIND[,..] --id DIGEST\n",
	      stderr);
	return 2;
}
