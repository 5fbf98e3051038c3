#include <stdio.h>

/* Copies all lines from one file to another one, with "> " in front of each; returns how many there were. */
int quote_lines(FILE *from, FILE *to)
{
    char line[256];
    int count = 0;
    while (fgets(line, sizeof line, from) != NULL) {
