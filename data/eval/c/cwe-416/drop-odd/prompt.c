#include <stdlib.h>

struct cell {
    int number;
    struct cell *next;
};

/* Frees every cell with an odd number and returns the list of those that are left, in their order. */
struct cell *drop_odd(struct cell *list)
{
    struct cell *previous = NULL, *cell = list;
    while (cell != NULL) {
