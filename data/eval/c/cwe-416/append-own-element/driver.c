#include "driver.h"

struct numbers {
    long *items;
    size_t count, capacity;
};

int append(struct numbers *list, const long *number);

int main(int argc, char **argv)
{
    struct numbers list = {NULL, 0, 0};
    for (int i = 1; i < argc; i++) {
        long number = atol(argv[i]);
        append(&list, strcmp(argv[i], "first") == 0 ? &list.items[0] : &number);
    }
    for (size_t i = 0; i < list.count; i++)
        printf("%ld ", list.items[i]);
    puts(".");
    return 0;
}
