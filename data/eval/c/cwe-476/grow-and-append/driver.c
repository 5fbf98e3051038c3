#include "driver.h"

struct series {
    int *values;
    int count, capacity;
};

int series_append(struct series *series, int value);

int main(int argc, char **argv)
{
    struct series series = {NULL, 0, 0};
    int appends = atoi(argv[2]), refused = 0, sum = 0;
    fail_allocation(atoi(argv[1]));
    for (int i = 1; i <= appends; i++)
        refused += series_append(&series, i) != 0;
    for (int i = 0; i < series.count; i++) {
        if (series.values == NULL) {
            puts("the values are lost");
            return 0;
        }
        sum += series.values[i];
    }
    printf("%d refused, sum %d\n", refused, sum);
    return 0;
}
