#include <stdio.h>

/* Saves "KEY=VALUE" lines in a new file. 0, or -1 if the file can't be written. */
int save_pairs(const char *path, const char *const keys[], const char *const values[], int count)
{
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return -1;
    for (int i = 0; i < count; i++) {
