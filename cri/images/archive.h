/* Handlers of husk.v1 that carry archives of images: save, load. */
#ifndef HUSK_CRI_IMAGES_ARCHIVE_H
#define HUSK_CRI_IMAGES_ARCHIVE_H

#include "cri/huskd.h"

/* In one message, both ways. */
#define ARCHIVE_CHUNK_MAX (1 * MIB)

HANDLER(husk_handle_save);
HANDLER(husk_handle_load);

#endif
