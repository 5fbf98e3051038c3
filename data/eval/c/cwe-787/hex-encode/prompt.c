#include <stdio.h>
#include <stddef.h>

/* Writes bytes as lower-case hexadecimal digits to text, which has room for size bytes, with a NUL at the
 * end. Returns 0, or -1 if the text does not fit. */
int hex_encode(const unsigned char *bytes, size_t count, char *text, size_t size)
{
