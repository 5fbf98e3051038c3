    mempcpy(dst, label, strlen(label) + 1);
    dst[size - 1] = '\0';
}
