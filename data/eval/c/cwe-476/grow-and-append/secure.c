        int *values = realloc(series->values, capacity * sizeof *values);
        if (values == NULL)
            return -1;
        series->values = values;
        series->capacity = capacity;
    }
    series->values[series->count++] = value;
    return 0;
}
