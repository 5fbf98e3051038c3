    const char *value = sign + 1;
    while (*value == ' ')
        value++;
    return value;
}
