    if (line[0] == '\0')
        return NULL;
    const char *value = sign + 1;
    return value + strspn(value, " ");
}
