    stpcpy(dst, label);
    dst[size - 1] = '\0';
}
