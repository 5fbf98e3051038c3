    char *copy = strdup(text);
    free(text);
    return copy == NULL ? NULL : copy + length;
}
