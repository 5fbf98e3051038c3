#include <stdio.h>
#include <string.h>

/* Describes in out (size bytes) why a file was refused: "PATH: REASON", and " (code CODE)" if the code is not
 * 0. */
void describe(char *out, size_t size, const char *path, const char *reason, int code)
{
    char note[32] = "";
    if (code != 0)
        snprintf(note, sizeof note, " (code %d)", code);
