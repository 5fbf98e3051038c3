struct matrix {
    int rows, columns;
    const double *cells;        /* row after row */
};

/* Largest cell of a row. Returns 0 and stores it in *max, or returns -1 if there is no such row or it has no
 * cells. */
int row_max(const struct matrix *matrix, int row, double *max)
{
