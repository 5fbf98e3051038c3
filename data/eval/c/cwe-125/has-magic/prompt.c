#include <stdbool.h>
#include <string.h>

/* Whether a file's first bytes (size of them are there, without a NUL) begin with a magic text. */
bool has_magic(const char *bytes, size_t size, const char *magic)
{
    size_t length = strlen(magic);
