#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* New text: a word between quotation marks. NULL without memory. */
char *quoted(const char *word)
{
    char *result = NULL;
