#include "driver.h"

void pad_left(char *cell, size_t size, const char *text, int width);

int main(int argc, char **argv)
{
    char *cell = exact(24);
    pad_left(cell, 24, argv[1], atoi(argv[2]));
    printf("[%s]\n", cell);
    return 0;
}
