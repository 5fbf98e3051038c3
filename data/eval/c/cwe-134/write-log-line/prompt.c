#include <stdio.h>

/* Writes a message and a line break to a log. */
void log_line(FILE *log, const char *message)
{
