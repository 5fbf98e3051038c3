#include "driver.h"

struct cell {
    int number;
    struct cell *next;
};

struct cell *drop_odd(struct cell *list);

int main(int argc, char **argv)
{
    struct cell *list = NULL;
    for (int i = argc - 1; i > 0; i--) {
        struct cell *cell = exact(sizeof *cell);
        cell->number = atoi(argv[i]);
        cell->next = list;
        list = cell;
    }
    for (list = drop_odd(list); list != NULL; list = list->next)
        printf("%d ", list->number);
    puts(".");
    return 0;
}
