#include <limits.h>
#include <stdbool.h>

/* base to the power of exponent, both not negative, in *result; false if an unsigned int can't hold it. */
bool power(unsigned base, unsigned exponent, unsigned *result)
{
    unsigned value = 1;
    while (exponent-- > 0) {
