#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Writes "$HOME/.cache/NAME" to path (size bytes). 0, or -1 if HOME is not set or the path does not fit. */
int cache_folder(char *path, size_t size, const char *name)
{
    const char *home = getenv("HOME");
