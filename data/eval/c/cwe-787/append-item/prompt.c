#include <string.h>

/* Appends an item to a list of items such as "tea, milk" in a buffer of size bytes, with ", " between them.
 * Returns 1; if there is no room, it returns 0 and leaves the list as it is. */
int append_item(char *list, size_t size, const char *item)
{
    const char *separator = list[0] ? ", " : "";
