#include "driver.h"

long window_sum(const int *samples, size_t count, size_t start, size_t width);

int main(int argc, char **argv)
{
    int *samples = exact(5 * sizeof *samples);
    for (int i = 0; i < 5; i++)
        samples[i] = 1 << i;
    printf("%ld\n", window_sum(samples, 5, strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10)));
    return 0;
}
