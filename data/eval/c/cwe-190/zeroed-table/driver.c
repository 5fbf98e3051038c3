#include "driver.h"

double *new_table(size_t rows, size_t columns);

int main(int argc, char **argv)
{
    size_t rows = strtoull(argv[1], NULL, 0), columns = strtoull(argv[2], NULL, 0);
    double *table = new_table(rows, columns), sum = 0;
    if (table == NULL) {
        puts("NULL");
        return 0;
    }
    for (size_t i = 0; i < rows * columns && i < 1000; i++)
        sum += table[i];
    printf("%g\n", sum);
    return 0;
}
