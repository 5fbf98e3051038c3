    if (columns != 0 && rows > SIZE_MAX / columns)
        return NULL;
    double *table = malloc(rows * columns * sizeof *table);
    if (table == NULL)
        return NULL;
    for (size_t i = 0; i < rows * columns; i++)
        table[i] = 0;
    return table;
}
