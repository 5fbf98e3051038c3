#include <stddef.h>

/* The element at an index, or fallback if the index lies outside the array. */
int element_at(const int *values, int count, int index, int fallback)
{
