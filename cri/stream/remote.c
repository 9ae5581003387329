#include "cri/stream/remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/utf8.h"
#include "base/util.h"

enum channel remote_channel(const char *name)
{
	static const char *const names[CHANNELS] = { "stdin", "stdout", "stderr", "error",
						     "resize" };

	for (unsigned i = 0; i < CHANNELS; i++)
		if (str_eq(names[i], name))
			return (enum channel)i;
	return CHANNELS;
}

/* Steals j. */
static char *text_of(json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	return text;
}

char *remote_exit_status(int exit_code, bool plain)
{
	char code[16], message[80];

	(void)snprintf(code, sizeof(code), "%d", exit_code);
	(void)snprintf(message, sizeof(message),
		       "command terminated with non-zero exit code: exit status %s", code);
	if (plain)
		return strdup(exit_code == 0 ? "" : message);
	if (exit_code == 0)
		return text_of(json_pack("{s:{}, s:s}", "metadata", "status", "Success"));
	return text_of(json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s, s:s}]}}", "metadata", "status",
				 "Failure", "message", message, "reason", "NonZeroExitCode",
				 "details", "causes", "reason", "ExitCode", "message", code));
}

char *remote_failure(const char *why, int exit_code, bool plain)
{
	char code[16];

	cleanup_free char *message =
		str_fmt("Internal error occurred: error executing command in container: %s", why);

	if (!message)
		return NULL;
	if (plain)
		return take_ptr(&message);
	utf8_repair(message); /* a guest may have had its say */
	(void)snprintf(code, sizeof(code), "%d", exit_code);
	if (exit_code)
		return text_of(json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s}, {s:s, s:s}]}, s:i}",
					 "metadata", "status", "Failure", "message", message,
					 "reason", "InternalError", "details", "causes", "message",
					 message, "reason", "ExitCode", "message", code, "code",
					 500));
	return text_of(json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s}]}, s:i}", "metadata", "status",
				 "Failure", "message", message, "reason", "InternalError",
				 "details", "causes", "message", message, "code", 500));
}

/* 0 = not there, or none that a terminal can have. */
static unsigned number_of(const json_t *j, const char *upper, const char *lower)
{
	const json_t *v = json_object_get(j, upper);
	json_int_t n;

	n = json_integer_value(v ? v : json_object_get(j, lower));
	return n > 0 && n <= UINT16_MAX ? (unsigned)n : 0;
}

int remote_size(struct remote_sizes *s, const uint8_t *data, size_t n, unsigned *width,
		unsigned *height)
{
	const uint8_t *end = memchr(data, '}', n);
	size_t len = end ? (size_t)(end - data) + 1 : n;
	json_t *j;

	*width = *height = 0;
	if (len > sizeof(s->text) - s->n)
		return -EMSGSIZE;
	memcpy(s->text + s->n, data, len);
	s->n += len;
	if (!end)
		return (int)len;
	/* Flat, so the first brace that closes is the last one. What is no size is left out. */
	j = json_loadb(s->text, s->n, 0, NULL);
	s->n = 0;
	*width = number_of(j, "Width", "width");
	*height = number_of(j, "Height", "height");
	if (!*width || !*height)
		*width = *height = 0;
	json_decref(j);
	return (int)len;
}
