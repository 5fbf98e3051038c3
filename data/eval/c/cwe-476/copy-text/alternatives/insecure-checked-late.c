    strcpy(copy, text);
    if (copy == NULL)
        return NULL;
    return copy;
}
