    size_t length = strlen(text);
    size_t spaces = length < (size_t)width ? width - length : 0;
    snprintf(cell, size, "%*s%s", (int)spaces, "", text);
}
