#include <string.h>

/* A record begins with the length of a name (one byte), and the name follows. Copies the name to out (256
 * bytes), with a NUL. Returns its length, or -1 if the record is shorter than it says. */
int record_name(const unsigned char *record, size_t size, char *out)
{
    if (size == 0)
        return -1;
    size_t length = record[0];
