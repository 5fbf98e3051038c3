    char *rest = text + length;
    free(text);
    return strdup(rest);
}
