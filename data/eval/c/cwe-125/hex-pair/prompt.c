#include <ctype.h>
#include <string.h>

static int digit(int c)
{
    return isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
}

/* Replaces each "%41" in a URL's text by the character of that hexadecimal code, in place. A '%' that no two
 * hexadecimal digits follow is kept. */
void url_decode(char *text)
{
    char *out = text;
    for (const char *in = text; *in; in++) {
