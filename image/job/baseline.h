/*
 * Baselines: each layer that came is read once, when no pull runs and no other process wants the
 * CPU, so that verifications have something to compare later readings with (store/layers.h). Loop
 * thread only.
 */
#ifndef HUSK_IMAGE_JOB_BASELINE_H
#define HUSK_IMAGE_JOB_BASELINE_H

struct jobs;

/* A layer has come, or the store was opened. What fails now is done after the next one. */
void baseline_schedule(struct jobs *js);
void baseline_close(struct jobs *js);

#endif
