    memcpy(copy, text, size);
    return copy;
}
