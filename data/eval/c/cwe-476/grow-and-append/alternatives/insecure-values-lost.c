        series->values = realloc(series->values, capacity * sizeof *series->values);
        if (series->values == NULL)
            return -1;
        series->capacity = capacity;
    }
    series->values[series->count++] = value;
    return 0;
}
