#include <stdlib.h>
#include <string.h>

/* A copy of a text in new memory, or NULL if there is none. */
char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
