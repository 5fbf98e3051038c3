#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* New message: the header's bytes, then the body's; *length is the length of it all. NULL, with *length 0, if
 * it is longer than a uint16_t can say or there is no memory. */
char *frame(const char *header, uint16_t header_length, const char *body, uint16_t body_length, uint16_t *length)
{
    *length = 0;
