/* Does a registry take credentials? The contract is that of image_login (image.h). Loop thread
 * only. */
#ifndef HUSK_IMAGE_JOB_LOGIN_H
#define HUSK_IMAGE_JOB_LOGIN_H

#include "image/image.h"

struct jobs;

int login_new(struct jobs *js, const char *server, const struct image_auth *auth,
	      image_login_done_fn done, void *arg, struct image_login **ret,
	      struct err *err) must_check;

#endif
