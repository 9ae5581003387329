/*
 * PID 1 that prints two clocks of the guest and reboots: the time stamp counter, which under QEMU's
 * -icount shift=0 is the number of instructions since reset, and CLOCK_MONOTONIC, which starts
 * later. Their difference is what the agent's own clock does not see of a boot.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

static uint64_t counter(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	uint64_t v;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#endif
}

int main(void)
{
	struct timespec t;
	uint64_t tsc = counter();

	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("clocks %llu %llu\n", (unsigned long long)tsc,
	       (unsigned long long)t.tv_sec * 1000000000 + (unsigned long long)t.tv_nsec);
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	return 1;
}
