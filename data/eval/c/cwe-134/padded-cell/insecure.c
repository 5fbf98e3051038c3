    size_t spaces = strlen(text) < (size_t)width ? width - strlen(text) : 0;
    memset(cell, ' ', spaces);
    snprintf(cell + spaces, size - spaces, text);
}
