#include <string.h>

/* Draws a bar of '=' for a level from 0 to 100 into bar, an array of 21 characters: one '=' for each 5, then
 * a NUL. Levels below 0 or above 100 are drawn as 0 or 100. */
void volume_bar(char bar[21], int level)
{
