    size_t length = strlen(label);
    if (length > size)
        length = size;
    memcpy(dst, label, length);
    dst[length] = '\0';
}
