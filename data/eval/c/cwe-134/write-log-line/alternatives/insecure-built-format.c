    char format[256];
    snprintf(format, sizeof format, "%s\n", message);
    fprintf(log, format);
}
