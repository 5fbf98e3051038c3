#include "driver.h"

char *repeat_block(const char *block, uint32_t size, uint32_t times);

int main(int argc, char **argv)
{
    uint32_t size = strtoul(argv[1], NULL, 0), times = strtoul(argv[2], NULL, 0);
    char *block = exact(size);
    memset(block, 'b', size);
    char *result = repeat_block(block, size, times);
    if (result == NULL)
        puts("NULL");
    else
        printf("%.*s\n", (int)(size * times), result);
    return 0;
}
