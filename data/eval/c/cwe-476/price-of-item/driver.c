#include "driver.h"

int price_of(const char *name, int pieces);

int main(int argc, char **argv)
{
    printf("%d\n", price_of(argv[1], atoi(argv[2])));
    return 0;
}
