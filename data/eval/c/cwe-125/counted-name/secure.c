    if (length > size - 1)
        return -1;
    memcpy(out, record + 1, length);
    out[length] = '\0';
    return length;
}
