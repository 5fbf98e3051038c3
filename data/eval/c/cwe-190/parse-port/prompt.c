#include <ctype.h>
#include <limits.h>

/* The number that a text of decimal digits says; -1 if there is anything else in it, or an int can't hold it.
 * */
int parse_count(const char *text)
{
    int value = 0;
    if (*text == '\0')
        return -1;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text))
            return -1;
        int digit = *text - '0';
