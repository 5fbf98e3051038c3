#include "driver.h"

int checked_sum(const int *numbers, size_t count);

int main(int argc, char **argv)
{
    int numbers[16];
    for (int i = 1; i < argc; i++)
        numbers[i - 1] = atoi(argv[i]);
    printf("%d\n", checked_sum(numbers, argc - 1));
    return 0;
}
