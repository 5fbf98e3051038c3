#include "driver.h"

struct matrix {
    int rows, columns;
    const double *cells;
};

int row_max(const struct matrix *matrix, int row, double *max);

int main(int argc, char **argv)
{
    int columns = atoi(argv[2]);
    double *cells = exact(2 * columns * sizeof *cells);
    struct matrix matrix = {2, columns, cells};
    for (int i = 0; i < 2 * columns; i++)
        cells[i] = (i * 7) % 5;
    double max = -1;
    int status = row_max(&matrix, atoi(argv[1]), &max);
    printf("%d %g\n", status, status == 0 ? max : 0.0);
    return 0;
}
