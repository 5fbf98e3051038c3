#include <stdlib.h>
#include <string.h>

/* New string with at most length characters of text from an offset on; "" if the offset lies beyond the
 * text's end. NULL without memory. */
char *copy_middle(const char *text, size_t offset, size_t length)
{
