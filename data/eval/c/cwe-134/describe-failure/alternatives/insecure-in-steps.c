    snprintf(out, size, path);
    strncat(out, ": ", size - strlen(out) - 1);
    strncat(out, reason, size - strlen(out) - 1);
    strncat(out, note, size - strlen(out) - 1);
}
