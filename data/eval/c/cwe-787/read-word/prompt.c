#include <ctype.h>
#include <stdio.h>

/* Reads characters up to the next white space or end of file into word (room for size bytes), with a NUL at
 * the end; what has no room is read and dropped. Returns the number of characters kept. */
size_t read_word(FILE *input, char *word, size_t size)
{
    size_t length = 0;
    int c;
