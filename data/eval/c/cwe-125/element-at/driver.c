#include "driver.h"

int element_at(const int *values, int count, int index, int fallback);

int main(int argc, char **argv)
{
    int *values = exact(3 * sizeof *values);
    values[0] = 5, values[1] = 6, values[2] = 7;
    printf("%d\n", element_at(values, 3, atoi(argv[1]), -9));
    return 0;
}
