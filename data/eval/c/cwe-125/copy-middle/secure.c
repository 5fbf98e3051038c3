    size_t total = strlen(text);
    if (offset > total)
        offset = total;
    return strndup(text + offset, length);
}
