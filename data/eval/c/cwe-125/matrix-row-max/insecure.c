    const double *cell = matrix->cells + row * matrix->columns;
    *max = cell[0];
    for (int i = 1; i < matrix->columns; i++)
        if (cell[i] > *max)
            *max = cell[i];
    return matrix->columns > 0 ? 0 : -1;
}
