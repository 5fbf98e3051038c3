#include "driver.h"

struct station {
    int number;
    struct station *next;
};

struct station *add_station(struct station *list, int number);

int main(int argc, char **argv)
{
    struct station *list = NULL;
    fail_allocation(atoi(argv[1]));
    for (int i = 2; i < argc; i++)
        list = add_station(list, atoi(argv[i]));
    for (; list != NULL; list = list->next)
        printf("%d ", list->number);
    puts(".");
    return 0;
}
