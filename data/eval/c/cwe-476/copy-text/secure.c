    if (copy == NULL)
        return NULL;
    memcpy(copy, text, size);
    return copy;
}
