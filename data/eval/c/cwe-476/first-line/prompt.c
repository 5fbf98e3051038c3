#include <stdio.h>
#include <string.h>

/* Reads the first line of a file, without its line break, into line (size bytes). Returns the line's length,
 * or -1 if the file can't be opened or is empty. */
int first_line(const char *path, char *line, int size)
{
    FILE *input = fopen(path, "r");
