#include <stddef.h>

/* Last byte of a message, or -1 if the message is empty. */
int last_byte(const unsigned char *message, size_t length)
{
