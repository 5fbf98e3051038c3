#include <stdarg.h>
#include <stdio.h>

/* Writes "PROGRAM: error: WHAT" and a line break. */
void complain(FILE *out, const char *program, const char *what)
{
