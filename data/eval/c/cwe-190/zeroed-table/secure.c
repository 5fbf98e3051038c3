    if (columns > SIZE_MAX / sizeof(double))
        return NULL;
    return calloc(rows, columns * sizeof(double));
}
