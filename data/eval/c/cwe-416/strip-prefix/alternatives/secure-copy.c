    char *rest = strdup(text + length);
    free(text);
    return rest;
}
