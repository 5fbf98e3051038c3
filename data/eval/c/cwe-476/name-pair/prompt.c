#include <stdlib.h>
#include <string.h>

struct pair {
    char *first, *last;         /* both allocated */
};

/* A new pair with copies of both names. NULL without memory; nothing is left allocated then. */
struct pair *new_pair(const char *first, const char *last)
{
    struct pair *pair = calloc(1, sizeof *pair);
