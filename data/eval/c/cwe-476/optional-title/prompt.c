#include <stdio.h>
#include <string.h>

/* Writes "TITLE NAME" to out (size bytes), or only the name if title is NULL or empty, or "nobody" if name is
 * NULL. Returns the length of what was written; it is cut to fit. */
size_t full_name(char *out, size_t size, const char *title, const char *name)
{
