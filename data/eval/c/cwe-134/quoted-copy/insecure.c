    char *format = malloc(strlen(word) + 3);
    if (format == NULL)
        return NULL;
    sprintf(format, "\"%s\"", word);
    if (asprintf(&result, format) < 0)
        result = NULL;
    free(format);
    return result;
}
