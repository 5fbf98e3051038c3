#include <stdio.h>

/* Prints "TASK: P%" and a line break, P with a width of 3. */
void show_progress(FILE *out, const char *task, int percent)
{
