/*
 * mkinitramfs OUT INIT: writes the guest's initramfs, an uncompressed newc cpio with /init (the
 * bytes of INIT) and /dev/console, which is /dev/kmsg (1:11): the kernel opens it as PID 1's
 * standard streams, and what PID 1 writes is a line of the kernel's log. Needs no root, and equal
 * input gives equal output: no times, no owners.
 *
 * The kernel reads the archive in place; a page-aligned start and a 4-byte aligned body are all it
 * asks for. Format: Documentation/driver-api/early-userspace/buffer-format.rst.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
	const char *name;
	uint32_t mode;
	uint32_t dev_major, dev_minor;
	const void *data;
	size_t len;
};

static void pad4(FILE *f, size_t n)
{
	static const char zero[4];
	fwrite(zero, 1, -n & 3, f);
}

static void put(FILE *f, uint32_t ino, const struct entry *e)
{
	size_t name_len = strlen(e->name) + 1;
	/* magic, ino, mode, uid, gid, nlink, mtime, filesize, dev, dev, rdev, rdev, namesize, check
	 */
	int head = fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x",
			   (unsigned int)ino, (unsigned int)e->mode, 0U, 0U, 1U, 0U, e->len, 0U, 0U,
			   (unsigned int)e->dev_major, (unsigned int)e->dev_minor, name_len, 0U);
	fwrite(e->name, 1, name_len, f);
	pad4(f, (size_t)head + name_len);
	if (e->len > 0)
		fwrite(e->data, 1, e->len, f);
	pad4(f, e->len);
}

static int die(const char *what)
{
	fprintf(stderr, "mkinitramfs: %s: %s\n", what, strerror(errno));
	return 1;
}

/* The archive of `data` under a temporary name, then renamed: a reader never sees half of it. */
static int write_archive(const char *out, const void *data, uint32_t len)
{
	const struct entry entries[] = {
		{ .name = "dev", .mode = S_IFDIR | 0755 },
		/* The kernel has one of its own there, a terminal, and keeps it until something of
		 * another type comes. */
		{ .name = "dev/console", .mode = S_IFREG | 0600 },
		{ .name = "dev/console", .mode = S_IFCHR | 0600, .dev_major = 1, .dev_minor = 11 },
		{ .name = "init", .mode = S_IFREG | 0755, .data = data, .len = len },
		{ .name = "TRAILER!!!" },
	};
	char *tmp = NULL;
	int bad, r = 0;
	FILE *f;

	if (asprintf(&tmp, "%s.tmp.%ld", out, (long)getpid()) < 0)
		return die(out);
	f = fopen(tmp, "we");
	if (!f) {
		r = die(tmp);
		free(tmp);
		return r;
	}
	for (uint32_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		put(f, i + 1, &entries[i]);
	bad = ferror(f);
	if (fclose(f) != 0 || bad || rename(tmp, out) < 0) {
		r = die(out);
		unlink(tmp);
	}
	free(tmp); /* the build runs it under the leak checker, too */
	return r;
}

int main(int argc, char **argv)
{
	struct stat st;
	void *data;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: mkinitramfs OUT INIT\n");
		return 2;
	}
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return die(argv[2]);
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > UINT32_MAX) {
		errno = EINVAL;
		return die(argv[2]);
	}
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (data == MAP_FAILED)
		return die(argv[2]);
	return write_archive(argv[1], data, (uint32_t)st.st_size);
}
