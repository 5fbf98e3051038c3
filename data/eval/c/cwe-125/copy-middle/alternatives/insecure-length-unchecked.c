    if (offset > strlen(text))
        offset = strlen(text);
    char *copy = malloc(length + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text + offset, length);
    copy[length] = '\0';
    return copy;
}
