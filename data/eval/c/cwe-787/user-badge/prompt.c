#include <stdio.h>

#define BADGE 24

/* Writes "#ID NAME" to the badge, BADGE bytes with the NUL; a name that is too long is cut. */
void make_badge(char *badge, int id, const char *name)
{
