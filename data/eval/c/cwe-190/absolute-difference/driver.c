#include "driver.h"

unsigned distance(int a, int b);

int main(int argc, char **argv)
{
    printf("%u\n", distance(atoi(argv[1]), atoi(argv[2])));
    return 0;
}
