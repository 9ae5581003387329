/* Resource limits by their OCI names. Pure. */
#ifndef HUSK_AGENT_PROC_RLIMIT_H
#define HUSK_AGENT_PROC_RLIMIT_H

/* RLIMIT_x of "RLIMIT_x", -1 = there is none of that name. */
int rlimit_of(const char *name);

#endif
