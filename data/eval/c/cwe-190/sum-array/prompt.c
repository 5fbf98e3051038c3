#include <stddef.h>
#include <limits.h>

/* Sum of count numbers of any sign; INT_MIN stands for a sum that an int can't hold. */
int checked_sum(const int *numbers, size_t count)
{
