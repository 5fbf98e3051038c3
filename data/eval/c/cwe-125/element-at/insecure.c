    if (values == NULL)
        return fallback;
    return values[index];
}
