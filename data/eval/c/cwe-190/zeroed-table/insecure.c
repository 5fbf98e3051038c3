    double *table = malloc(rows * columns * sizeof(double));
    if (table == NULL)
        return NULL;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            table[i * columns + j] = 0;
    return table;
}
