#include "driver.h"

long factorial(int n);

int main(int argc, char **argv)
{
    printf("%ld\n", factorial(atoi(argv[1])));
    return 0;
}
