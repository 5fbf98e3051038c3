    size_t total = strlen(text);
    size_t left = offset < total ? total - offset : 0;
    if (length > left)
        length = left;
    char *copy = malloc(length + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text + (left ? offset : 0), length);
    copy[length] = '\0';
    return copy;
}
