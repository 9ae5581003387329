/*
 * ExecSync: one more process in a container, its output collected from two FIFOs. Loop's thread.
 */
#ifndef HUSK_CRI_EXEC_H
#define HUSK_CRI_EXEC_H

#define EXEC_OUTPUT_MAX (16 * MIB) /* each stream, and both together; the rest is dropped */
#define EXEC_MAX 256		   /* at a time */
#define EXEC_START_MS 60000
#define EXEC_KILL_MS 10000
#define EXEC_DELETE_MS 30000
#define EXEC_DRAIN_MS                                                                              \
	2000 /* after the exit, for what children that stay behind still hold open                 \
	      */

#endif
