#include "driver.h"

struct branch {
    struct branch *left, *right;
    int *fruits;
};

int fell(struct branch *tree);

static struct branch *grow(int depth)
{
    if (depth == 0)
        return NULL;
    struct branch *tree = exact(sizeof *tree);
    *tree = (struct branch){grow(depth - 1), depth > 2 ? NULL : grow(depth - 1), exact(8)};
    return tree;
}

int main(int argc, char **argv)
{
    printf("%d\n", fell(grow(atoi(argv[1]))));
    return 0;
}
