    bcopy(label, dst, strlen(label) + 1);
    dst[size - 1] = '\0';
}
