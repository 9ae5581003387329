#include "agent/proc/hold.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

int hold_at_exec(pid_t pid)
{
	return ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXEC) < 0 ? -errno : 0;
}

/* What fails below fails because the process was killed: its exit comes next. */
bool hold_is_exec(pid_t pid, int status)
{
	int event = status >> 16;

	if (event == PTRACE_EVENT_EXEC)
		return true;
	if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
		(void)ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped for all, until SIGCONT */
	else
		(void)ptrace(PTRACE_CONT, pid, 0, event ? 0 : WSTOPSIG(status));
	return false;
}

void hold_release(pid_t pid)
{
	(void)ptrace(PTRACE_DETACH, pid, 0, 0);
}
