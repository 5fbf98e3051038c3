#include <stdio.h>
#include <string.h>

/* Writes a text into cell (size bytes) and fills with spaces on the left to the width; a text that is longer
 * than the width stays whole, as far as the cell has room. */
void pad_left(char *cell, size_t size, const char *text, int width)
{
