/*
 * After a start: each record of the database against its shim. Pods whose shim answers go on; of
 * the others the rest is removed and the containers are reported dead. What was half made goes
 * away. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_RECOVER_H
#define HUSK_CRI_RUNTIME_RECOVER_H

#include "base/compiler.h"
#include "base/err.h"

struct huskd;

/* `done` once, when all have answered or the time is up; perhaps inside. */
int recover_start(struct huskd *d, void (*done)(struct huskd *d), struct err *err) must_check;

#endif
