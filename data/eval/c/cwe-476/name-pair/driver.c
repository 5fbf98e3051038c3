#include "driver.h"

struct pair {
    char *first, *last;
};

struct pair *new_pair(const char *first, const char *last);

int main(int argc, char **argv)
{
    fail_allocation(atoi(argv[1]));
    struct pair *pair = new_pair(argv[2], argv[3]);
    if (pair == NULL)
        puts("NULL");
    else
        printf("%s %s\n", pair->first ? pair->first : "-", pair->last ? pair->last : "-");
    return 0;
}
