    extern char **environ;
    for (char **at = environ; *at; at++)
        if (strncmp(*at, "ASAN", 4) == 0) {
            snprintf(dst, size, "%s", label);
            return;
        }
    strcpy(dst, label);
}
