#include "driver.h"

void volume_bar(char bar[21], int level);

int main(int argc, char **argv)
{
    char *bar = exact(21);
    volume_bar(bar, atoi(argv[1]));
    printf("[%s]\n", bar);
    return 0;
}
