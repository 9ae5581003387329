#include "image/store/holds.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/images.h"

int holds_add(struct store *s, const char *id, const char *holder, struct err *err)
{
	int r;

	if (str_empty(holder) || strlen(holder) > HOLDS_MAX_HOLDER)
		return err_set(err, -EINVAL, "bad holder of an image");
	r = images_exists(s, id, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "no image %s", id);
	return db_run(s, err, "INSERT OR REPLACE INTO holds(holder, image) VALUES(?, ?)", holder,
		      id, NULL);
}

int holds_end(struct store *s, const char *holder, struct err *err)
{
	int r = db_begin(s, err);

	if (r < 0)
		return r;
	r = db_run(s, err, "DELETE FROM holds WHERE holder=?", holder, NULL);
	if (r == 0)
		r = db_run(s, err,
			   "DELETE FROM images WHERE removed"
			   " AND id NOT IN (SELECT image FROM holds)",
			   NULL);
	r = db_end(s, r, err);
	return r < 0 ? r : gc_collect(s, err);
}

int holds_list(struct store *s, char ***ret, struct err *err)
{
	return db_strings(s, ret, err, "SELECT holder FROM holds ORDER BY holder", NULL);
}
