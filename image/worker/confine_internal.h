/* What confine.c and confine_fetch.c share: how a filter is made. Inside of a worker. */
#ifndef HUSK_IMAGE_WORKER_CONFINE_INTERNAL_H
#define HUSK_IMAGE_WORKER_CONFINE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include <seccomp.h>

#include "base/compiler.h"
#include "base/err.h"

/* Sanitizers need system calls and memory that the filters and limits refuse. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONFINE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CONFINE_SANITIZED 1
#endif
#endif
#ifndef CONFINE_SANITIZED
#define CONFINE_SANITIZED 0
#endif

/* 0, or libseccomp's negative errno. */
int confine_add_all(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n) must_check;
/* Memory that cannot be executed, descriptors that are open, exit. */
int confine_allow_basics(scmp_filter_ctx ctx) must_check;
/* r: what making it has given. Frees it. */
int confine_load(scmp_filter_ctx ctx, int r, struct err *err) must_check;

#endif
