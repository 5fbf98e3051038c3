#include "driver.h"

int order_total(int quantity, int unit_price);

int main(int argc, char **argv)
{
    printf("%d\n", order_total(atoi(argv[1]), atoi(argv[2])));
    return 0;
}
