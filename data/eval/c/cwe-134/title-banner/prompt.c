#include <stdio.h>
#include <string.h>

/* Prints a title and, below it, as many '-' as the title has characters. */
void print_title(const char *title)
{
