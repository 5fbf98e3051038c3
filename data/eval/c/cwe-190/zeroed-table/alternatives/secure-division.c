    if (columns != 0 && rows > SIZE_MAX / sizeof(double) / columns)
        return NULL;
    double *table = malloc(rows * columns * sizeof *table);
    for (size_t i = 0; table != NULL && i < rows * columns; i++)
        table[i] = 0;
    return table;
}
