#include <stddef.h>

/* Number of characters in UTF-8 text of size bytes that has no NUL: a byte below 0x80 is one, and one from
 * 0xC0 on begins one of 2 (below 0xE0), 3 (below 0xF0) or 4 bytes. Bytes from 0x80 to 0xBF that begin nothing
 * are skipped, and so is a character that is not complete. */
size_t count_characters(const unsigned char *text, size_t size)
{
    size_t count = 0, i = 0;
    while (i < size) {
        size_t length = text[i] < 0x80 ? 1 : text[i] < 0xC0 ? 0 : text[i] < 0xE0 ? 2 : text[i] < 0xF0 ? 3 : 4;
        if (length == 0) {
            i++;
            continue;
        }
