/* `check`: reads files of the store and reports their digests. */
#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/util.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/wire.h"
#include "image/worker/worker.h"
#include "image/worker/confine.h"

#define CHUNK (64 * KIB)
#define MAX_CPU_S 3600
#define EXT4_MAGIC_AT 1080
#define EXT4_BLOCKS_AT 1028
#define EXT4_BLOCK_SIZE 4096u

static uint8_t buf[CHUNK];
static int fd; /* of the file that is being read */

static int update(EVP_MD_CTX *c, const void *data, size_t len, struct err *err)
{
	return EVP_DigestUpdate(c, data, len) ? 0 : err_nomem(err);
}

/* Fills `buf` up to the end of the file. */
static ssize_t read_chunk(struct err *err)
{
	size_t got = 0;

	while (got < CHUNK) {
		ssize_t n = read(fd, buf + got, CHUNK - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, -errno, "read it");
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int check_blob(EVP_MD_CTX *c, struct err *err)
{
	ssize_t n;

	while ((n = read_chunk(err)) > 0) {
		int r = update(c, buf, (size_t)n, err);

		if (r < 0)
			return r;
	}
	return (int)n;
}

/* A file system knows its own length, so a file that was cut is found without a digest. */
static int check_superblock(uint64_t size, struct err *err)
{
	uint16_t magic;
	uint32_t blocks;

	memcpy(&magic, buf + EXT4_MAGIC_AT, sizeof(magic));
	memcpy(&blocks, buf + EXT4_BLOCKS_AT, sizeof(blocks));
	if (le16toh(magic) != 0xef53)
		return err_set(err, -EBADMSG, "there is no file system in it");
	if ((uint64_t)le32toh(blocks) * EXT4_BLOCK_SIZE != size)
		return err_set(err, -EBADMSG, "it has %llu bytes, its file system %llu",
			       (unsigned long long)size,
			       (unsigned long long)le32toh(blocks) * EXT4_BLOCK_SIZE);
	return 0;
}

static int update_u64(EVP_MD_CTX *c, uint64_t v, struct err *err)
{
	uint64_t le = htole64(v);

	return update(c, &le, sizeof(le), err);
}

static int check_layer(EVP_MD_CTX *c, struct err *err)
{
	uint64_t at = 0;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "look at it");
	r = update_u64(c, (uint64_t)st.st_size, err);
	while (r == 0) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		ssize_t n;

		if (data < 0)
			return errno == ENXIO ? 0 : err_errno(err, -errno, "read it");
		at = (uint64_t)data & ~(uint64_t)(CHUNK - 1);
		if (lseek(fd, (off_t)at, SEEK_SET) < 0)
			return err_errno(err, -errno, "read it");
		n = read_chunk(err);
		if (n <= 0)
			return (int)n;
		if (at == 0)
			r = check_superblock((uint64_t)st.st_size, err);
		if (r == 0 && (buf[0] || memcmp(buf, buf + 1, (size_t)n - 1) != 0)) {
			r = update_u64(c, at, err);
			if (r == 0)
				r = update(c, buf, (size_t)n, err);
		}
		at += (uint64_t)n;
	}
	return r;
}

static int check_file(EVP_MD_CTX *c, char kind, char digest[DIGEST_LEN + 1], struct err *err)
{
	uint8_t sha[32];
	int r = EVP_DigestInit_ex(c, EVP_sha256(), NULL) ? 0 : err_nomem(err);

	if (r == 0)
		r = kind == CHECK_LAYER ? check_layer(c, err) : check_blob(c, err);
	if (r == 0 && !EVP_DigestFinal_ex(c, sha, NULL))
		r = err_nomem(err);
	if (r == 0)
		digest_from_sha256(sha, digest);
	return r;
}

static int report(int code, char *digest, const struct err *err)
{
	Worker__Failure f = WORKER__FAILURE__INIT;
	Worker__CheckReport c = WORKER__CHECK_REPORT__INIT;

	if (code < 0) {
		wire_failure_of(&f, code, err);
		c.failure = &f;
	} else {
		c.digest = digest;
	}
	return wire_write(WORKER_REPORT_FD, &c.base, WIRE_MAX_SMALL);
}

/* -errno: a report could not be written; huskd sees the end of the process. */
static int check_files(EVP_MD_CTX *c, const char *kinds, struct err *err)
{
	int r = 0;

	for (size_t k = 0; r == 0 && kinds[k]; k++) {
		char digest[DIGEST_LEN + 1];
		int code;

		fd = CHECK_FIRST_FD + (int)k;
		code = check_file(c, kinds[k], digest, err);
		r = report(code, digest, err);
		close(fd);
	}
	return r;
}

int worker_check(const char *kinds, bool when_idle)
{
	const struct confine_limits limits = { 256 * MIB, 0, MAX_CPU_S };
	const struct sched_param idle = { 0 };
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	struct err err = { 0 };
	int r = c ? 0 : err_nomem(&err);

	if (when_idle)
		(void)sched_setscheduler(0, SCHED_IDLE, &idle);
	/* libcrypto loads things at its first use, which has to be before the confinement. */
	if (r == 0 && !EVP_DigestInit_ex(c, EVP_sha256(), NULL))
		r = err_nomem(&err);
	if (r == 0)
		r = confine_common(&limits, &err);
	if (r == 0)
		r = confine_decode(&err);
	if (r < 0)
		(void)!report(r, NULL, &err);
	else
		r = check_files(c, kinds, &err);
	EVP_MD_CTX_free(c);
	return r < 0;
}
