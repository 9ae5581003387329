/* Handlers of husk.v1 for images, but pull (images/service.c), save, load and push. */
#ifndef HUSK_CRI_IMAGES_HUSK_IMAGES_H
#define HUSK_CRI_IMAGES_HUSK_IMAGES_H

#include "cri/huskd.h"

HANDLER(husk_handle_list);
HANDLER(husk_handle_inspect);
HANDLER(husk_handle_tag);
HANDLER(husk_handle_remove);
HANDLER(husk_handle_usage);
HANDLER(husk_handle_prune);
HANDLER(husk_handle_verify); /* verify.c */
HANDLER(husk_handle_push);   /* push.c */
HANDLER(husk_handle_login);

#endif
