#include "driver.h"

int append_item(char *list, size_t size, const char *item);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *list = exact(size);
    list[0] = '\0';
    for (int i = 2; i < argc; i++)
        printf("%d", append_item(list, size, argv[i]));
    printf(" %s\n", list);
    return 0;
}
