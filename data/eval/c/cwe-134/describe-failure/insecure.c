    char format[256];
    snprintf(format, sizeof format, "%s: %s%%s", path, reason);
    snprintf(out, size, format, note);
}
