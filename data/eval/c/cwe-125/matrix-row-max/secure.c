    if (row < 0 || row >= matrix->rows || matrix->columns < 1)
        return -1;
    const double *cell = matrix->cells + row * matrix->columns;
    *max = cell[0];
    for (int i = 1; i < matrix->columns; i++)
        if (cell[i] > *max)
            *max = cell[i];
    return 0;
}
