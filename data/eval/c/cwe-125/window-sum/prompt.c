#include <stddef.h>

/* Sum of width samples beginning at start; samples beyond the end count as 0. */
long window_sum(const int *samples, size_t count, size_t start, size_t width)
{
    long sum = 0;
