#include <stdlib.h>
#include <string.h>

/* Takes an allocated text over and returns an allocated one without the prefix, if the text begins with it.
 * The caller frees only what is returned. NULL without memory. */
char *strip_prefix(char *text, const char *prefix)
{
    size_t length = strlen(prefix);
    if (strncmp(text, prefix, length) != 0)
        return text;
