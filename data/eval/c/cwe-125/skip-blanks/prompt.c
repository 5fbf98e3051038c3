#include <stddef.h>

/* Offset of the first character at or after position that is no space, in text of length characters without a
 * NUL; length if there is none. */
size_t skip_blanks(const char *text, size_t length, size_t position)
{
