#include "image/store/space.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "image/store/internal.h"

uint64_t space_reserve_of(uint64_t total)
{
	uint64_t reserve = MAX_OF(total / SPACE_PART, (uint64_t)SPACE_LEAST);

	return MIN_OF(MIN_OF(reserve, (uint64_t)SPACE_MOST), total / SPACE_PART_OF_SMALL);
}

static uint64_t reserve_on(const struct store *s, const struct statvfs *st)
{
	return s->reserve ? s->reserve : space_reserve_of((uint64_t)st->f_blocks * st->f_frsize);
}

uint64_t space_reserve(const struct store *s)
{
	struct statvfs st;

	return statvfs(s->dir, &st) < 0 ? 0 : reserve_on(s, &st);
}

static bool is_short(uint64_t available, uint64_t reserve, uint64_t need)
{
	return available < reserve || available - reserve < need;
}

/* Tenths of a MiB. */
static unsigned long long tenths(uint64_t bytes)
{
	return (unsigned long long)(bytes * 10 / MIB);
}

int space_refuse(const struct store *s, uint64_t need, struct err *err)
{
	char needed[48] = "", is_free[48] = "";
	uint64_t available, reserve = 0;
	struct statvfs st;

	if (statvfs(s->dir, &st) == 0) {
		available = (uint64_t)st.f_bavail * st.f_frsize;
		reserve = reserve_on(s, &st);
		if (is_short(available, reserve, need))
			(void)snprintf(is_free, sizeof(is_free), "%llu.%llu MiB are free, and ",
				       tenths(available) / 10, tenths(available) % 10);
	}
	if (need)
		(void)snprintf(needed, sizeof(needed), "%llu.%llu MiB are needed, ",
			       tenths(need) / 10, tenths(need) % 10);
	return err_set(err, -ENOSPC,
		       "No space left for images in %s: %s%s%llu.%llu MiB have to stay free for "
		       "containers and the host (images.reserve-mib); remove images (husk rmi, "
		       "husk prune), or make room",
		       s->dir, needed, is_free, tenths(reserve) / 10, tenths(reserve) % 10);
}

int space_check(struct store *s, uint64_t need, struct err *err)
{
	struct statvfs st;

	if (statvfs(s->dir, &st) < 0 ||
	    !is_short((uint64_t)st.f_bavail * st.f_frsize, reserve_on(s, &st), need))
		return 0;
	return space_refuse(s, need, err);
}

uint64_t space_of_fd(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t space_of_path(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
