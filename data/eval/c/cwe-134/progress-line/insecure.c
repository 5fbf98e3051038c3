    char format[128];
    snprintf(format, sizeof format, "%s: %%3d%%%%\n", task);
    fprintf(out, format, percent);
}
