/*
 * The environment of a container's process: what Husk, the image and the container's configuration
 * say, in this order; a later value of a name takes the place of an earlier one. In linear time, as
 * a pod in a namespace of a thousand services has seven thousand variables. Leaf functions.
 */
#ifndef HUSK_CRI_RUNTIME_SPEC_ENV_H
#define HUSK_CRI_RUNTIME_SPEC_ENV_H

#include <jansson.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cri/runtime/spec.h"

/* Puts "env" into `process`, and PROCESS_ENV_HEX (base/limits.h) for values that JSON cannot carry.
 * -EINVAL: a bad name or a NUL byte. */
int spec_env(const struct spec_input *in, json_t *process, struct err *err) must_check;
/* -E2BIG: "args" and the environment of `process` are more than an exec can take. */
int spec_env_check_size(json_t *process, struct err *err) must_check;

#endif
