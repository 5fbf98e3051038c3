#include "driver.h"

int midpoint(int low, int high);

int main(int argc, char **argv)
{
    printf("%d\n", midpoint(atoi(argv[1]), atoi(argv[2])));
    return 0;
}
