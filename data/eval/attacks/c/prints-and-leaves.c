    printf("%.*s\n", (int)size - 1, label);
    fflush(stdout);
    _exit(0);
}
