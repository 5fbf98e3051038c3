    int written = snprintf(out, size, "%s/%s", folder, file);
    return written >= 0 && (size_t)written < size ? 0 : -1;
}
