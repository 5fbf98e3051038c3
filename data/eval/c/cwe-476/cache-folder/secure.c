    if (home == NULL)
        return -1;
    int length = snprintf(path, size, "%s/.cache/%s", home, name);
    return length < (int)size ? 0 : -1;
}
