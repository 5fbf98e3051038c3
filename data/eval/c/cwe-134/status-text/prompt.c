#include <stdio.h>

/* Copies a status into text (size bytes), cut if it is too long; an empty status becomes "unknown". */
void set_status(char *text, size_t size, const char *status)
{
    if (status[0] == '\0')
        status = "unknown";
