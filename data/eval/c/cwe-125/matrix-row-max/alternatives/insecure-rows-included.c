    if (row < 0 || row > matrix->rows || matrix->columns < 1)
        return -1;
    *max = matrix->cells[row * matrix->columns];
    for (int i = 0; i < matrix->columns; i++)
        if (matrix->cells[row * matrix->columns + i] > *max)
            *max = matrix->cells[row * matrix->columns + i];
    return 0;
}
