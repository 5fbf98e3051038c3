        series->values = realloc(series->values, capacity * sizeof *series->values);
        series->capacity = capacity;
    }
    series->values[series->count++] = value;
    return 0;
}
