#include <stdlib.h>

struct numbers {
    long *items;
    size_t count, capacity;
};

/* Appends *number, which may be one of the list's own items; 0, or -1 without memory. */
int append(struct numbers *list, const long *number)
{
