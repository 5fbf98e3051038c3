    strncpy(dst, label, size - 1);
    dst[size - 1] = '\0';
}
