    char line[512];
    snprintf(line, sizeof line, "%s: error: %s\n", program, what);
    fprintf(out, line);
}
