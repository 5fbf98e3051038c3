#include <stdint.h>
#include <stdlib.h>

/* A table of rows times columns numbers, all zero. NULL if it can't be made. */
double *new_table(size_t rows, size_t columns)
{
