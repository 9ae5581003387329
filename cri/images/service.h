/* Handlers of the image service, and of husk.v1's pull. */
#ifndef HUSK_CRI_IMAGES_SERVICE_H
#define HUSK_CRI_IMAGES_SERVICE_H

#include "base/utf8.h"
#include "cri/huskd.h"

HANDLER(image_handle_list);
HANDLER(image_handle_status);
HANDLER(image_handle_pull);
HANDLER(image_handle_remove);
HANDLER(image_handle_fs_info);
HANDLER(husk_handle_pull);

#endif
