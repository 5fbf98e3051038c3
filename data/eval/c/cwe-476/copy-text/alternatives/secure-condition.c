    if (copy)
        strcpy(copy, text);
    return copy;
}
