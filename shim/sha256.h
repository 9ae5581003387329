/*
 * SHA-256 (FIPS 180-4), for the name of the shim's socket only: containerd's convention is the hash
 * of address, namespace and group. A crypto library would take more memory than all of the shim.
 * Pure function, any thread.
 */
#ifndef HUSK_SHIM_SHA256_H
#define HUSK_SHIM_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

void sha256(const void *data, size_t n, uint8_t out[SHA256_SIZE]);

#endif
