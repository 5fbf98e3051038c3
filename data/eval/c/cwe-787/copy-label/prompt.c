#include <stdio.h>
#include <string.h>

/* Copies a label to dst, which has room for size bytes (at least one), always with a NUL; a longer one is
 * cut. */
void copy_label(char *dst, size_t size, const char *label)
{
