#include <stdio.h>
#include <string.h>

/* Writes "folder/file" to out, which has room for size bytes. Returns 0, or -1 if it does not fit. */
int join_path(char *out, size_t size, const char *folder, const char *file)
{
