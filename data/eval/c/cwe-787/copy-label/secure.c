    snprintf(dst, size, "%s", label);
}
