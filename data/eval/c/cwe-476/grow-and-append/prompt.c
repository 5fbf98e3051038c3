#include <stdlib.h>

struct series {
    int *values;
    int count, capacity;
};

/* Appends a value. 0; or -1 without memory, and then the series is as it was. */
int series_append(struct series *series, int value)
{
    if (series->count == series->capacity) {
        int capacity = series->capacity + 16;
