/* What calls about images share: the last progress, kept and given on, also without memory. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "cri/images/images.h"
#include "test/lib/torture.h"

static const struct image_layer_progress two[] = {
	{ "sha256:a", 5, 10, IMAGE_LAYER_FETCHING },
	{ "sha256:b", 0, 20, IMAGE_LAYER_SHARED },
};
static const struct image_layer_progress other[] = {
	{ "sha256:a", 10, 10, IMAGE_LAYER_DONE },
	{ "sha256:c", 7, 30, IMAGE_LAYER_UNPACKING },
};
static const struct image_blob_progress blobs[] = {
	{ "sha256:x", 1, 2, IMAGE_PUSH_SENDING },
	{ "sha256:y", 3, 4, IMAGE_PUSH_MOUNTED },
	{ "sha256:z", 5, 6, IMAGE_PUSH_DONE },
};

static void layers(void **state)
{
	struct images_progress v = { 0 };
	Husk__LayerProgress **list = NULL;

	assert_int_equal(images_layer_list(&v, &list), 0);
	assert_null(list);
	images_progress_layers(&v, two, 2);
	images_progress_layers(&v, other, 2); /* another image with as many layers */
	assert_int_equal(images_layer_list(&v, &list), 2);
	assert_string_equal(list[0]->digest, "sha256:a");
	assert_string_equal(list[1]->digest, "sha256:c");
	assert_int_equal(list[1]->fetched, 7);
	assert_int_equal(list[1]->size, 30);
	assert_int_equal(list[1]->state, HUSK__LAYER_PROGRESS__STATE__UNPACKING);
	assert_ptr_equal(list[0]->base.descriptor, &husk__layer_progress__descriptor);
	free(list);
	images_progress_layers(&v, two, 1);
	assert_int_equal(images_layer_list(&v, &list), 1);
	assert_int_equal(list[0]->fetched, 5);
	free(list);
	images_progress_fini(&v);
	images_progress_fini(&v);
}

static void blobs_of_a_push(void **state)
{
	struct images_progress v = { 0 };
	Husk__BlobProgress **list = NULL;

	images_progress_blobs(&v, blobs, 3);
	assert_int_equal(images_blob_list(&v, &list), 3);
	assert_string_equal(list[2]->digest, "sha256:z");
	assert_int_equal(list[2]->sent, 5);
	assert_int_equal(list[1]->state, HUSK__BLOB_PROGRESS__STATE__MOUNTED);
	free(list);
	images_progress_fini(&v);
}

/* Whatever is not kept, the message can be packed and everything can be freed. */
static int all(void *arg)
{
	struct images_progress v = { 0 };
	Husk__LayerProgress **list = NULL;
	Husk__BlobProgress **blob_list = NULL;
	uint8_t packed[256];

	images_progress_layers(&v, two, 2);
	images_progress_layers(&v, other, 2);
	for (size_t i = images_layer_list(&v, &list); i > 0; i--)
		assert_in_range(husk__layer_progress__pack(list[i - 1], packed), 2, 32);
	free(list);
	images_progress_blobs(&v, blobs, 3);
	for (size_t i = images_blob_list(&v, &blob_list); i > 0; i--)
		assert_in_range(husk__blob_progress__pack(blob_list[i - 1], packed), 2, 32);
	free(blob_list);
	images_progress_fini(&v);
	return 0;
}

static void without_memory(void **state)
{
	assert_in_range(torture(all, NULL, true, 40), 9, 40);
}

static void credentials(void **state)
{
	Cri__AuthConfig a = CRI__AUTH_CONFIG__INIT;
	struct image_auth auth = images_auth(NULL);

	assert_null(auth.username);
	a.username = (char *)"u";
	a.registry_token = (char *)"t";
	auth = images_auth(&a);
	assert_string_equal(auth.username, "u");
	assert_string_equal(auth.registry_token, "t");
	assert_string_equal(auth.password, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers),
		cmocka_unit_test(blobs_of_a_push),
		cmocka_unit_test(without_memory),
		cmocka_unit_test(credentials),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
