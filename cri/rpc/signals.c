#include "cri/rpc/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

/* SIGRTMIN and SIGRTMAX as glibc numbers them, which keeps the kernel's first two for itself. That
 * is what the names in images mean, whatever C library the container has. */
#define RT_MIN 34
#define RT_MAX 64

/* In the order of CRI's enum, from 1 on. Numbers of x86 and arm. */
static const struct {
	const char *name;
	int number;
} names[] = {
	{ "ABRT", 6 },	  { "ALRM", 14 },  { "BUS", 7 },   { "CHLD", 17 }, { "CLD", 17 },
	{ "CONT", 18 },	  { "FPE", 8 },	   { "HUP", 1 },   { "ILL", 4 },   { "INT", 2 },
	{ "IO", 29 },	  { "IOT", 6 },	   { "KILL", 9 },  { "PIPE", 13 }, { "POLL", 29 },
	{ "PROF", 27 },	  { "PWR", 30 },   { "QUIT", 3 },  { "SEGV", 11 }, { "STKFLT", 16 },
	{ "STOP", 19 },	  { "SYS", 31 },   { "TERM", 15 }, { "TRAP", 5 },  { "TSTP", 20 },
	{ "TTIN", 21 },	  { "TTOU", 22 },  { "URG", 23 },  { "USR1", 10 }, { "USR2", 12 },
	{ "VTALRM", 26 }, { "WINCH", 28 }, { "XCPU", 24 }, { "XFSZ", 25 },
};

int signal_parse(const char *s, int *ret)
{
	uint64_t n;
	bool min;

	if (strncasecmp(s, "SIG", 3) == 0)
		s += 3;
	if (str_to_u64(s, 1, RT_MAX, &n) == 0) {
		*ret = (int)n;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(s, names[i].name) == 0) {
			*ret = names[i].number;
			return 0;
		}
	}
	if (strncasecmp(s, "RTM", 3) != 0)
		return -EINVAL;
	min = strncasecmp(s, "RTMIN", 5) == 0;
	if (!min && strncasecmp(s, "RTMAX", 5) != 0)
		return -EINVAL;
	s += 5;
	if (*s == '\0') {
		*ret = min ? RT_MIN : RT_MAX;
		return 0;
	}
	if (*s != (min ? '+' : '-') || str_to_u64(s + 1, 0, RT_MAX - RT_MIN, &n) < 0)
		return -EINVAL;
	*ret = min ? RT_MIN + (int)n : RT_MAX - (int)n;
	return 0;
}

int signal_of_cri(Cri__Signal s)
{
	int n = (int)s;

	if (n >= 1 && n <= (int)ARRAY_SIZE(names))
		return names[n - 1].number;
	if (n >= CRI__SIGNAL__SIGNAL_SIGRTMIN && n <= CRI__SIGNAL__SIGNAL_SIGRTMAX)
		return RT_MIN + n - CRI__SIGNAL__SIGNAL_SIGRTMIN;
	return 0;
}

Cri__Signal signal_to_cri(int signo)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].number == signo)
			return (Cri__Signal)(i + 1);
	}
	if (signo >= RT_MIN && signo <= RT_MAX)
		return (Cri__Signal)(CRI__SIGNAL__SIGNAL_SIGRTMIN + signo - RT_MIN);
	return CRI__SIGNAL__SIGNAL_RUNTIME_DEFAULT;
}
