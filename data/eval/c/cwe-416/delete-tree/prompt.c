#include <stdlib.h>

struct branch {
    struct branch *left, *right;
    int *fruits;        /* allocated, or NULL */
};

/* Frees a tree with its fruits; returns the number of branches it had. */
int fell(struct branch *tree)
{
    if (tree == NULL)
        return 0;
