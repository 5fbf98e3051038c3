    size_t length = strlen(label);
    if (length >= size)
        length = size - 1;
    memcpy(dst, label, length);
    dst[length] = '\0';
}
