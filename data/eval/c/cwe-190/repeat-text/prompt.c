#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* New buffer with `times` copies of size bytes, one after the other. NULL if it can't be made. */
char *repeat_block(const char *block, uint32_t size, uint32_t times)
{
