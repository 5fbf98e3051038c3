#include "driver.h"

bool power(unsigned base, unsigned exponent, unsigned *result);

int main(int argc, char **argv)
{
    unsigned result = 0;
    bool fits = power(strtoul(argv[1], NULL, 0), strtoul(argv[2], NULL, 0), &result);
    printf("%d %u\n", fits, fits ? result : 0);
    return 0;
}
