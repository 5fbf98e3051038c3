#include <string.h>

/* Length of the second word of a text (words are separated by spaces), or 0 if there is none. The text may be
 * changed. */
size_t second_word_length(char *text)
{
