#include <stddef.h>

/* Copies a line and writes four spaces for each tab. out has room for size bytes (at least one); what does
 * not fit is left out, and a NUL is always at the end. */
void expand_tabs(const char *line, char *out, size_t size)
{
    size_t used = 0;
