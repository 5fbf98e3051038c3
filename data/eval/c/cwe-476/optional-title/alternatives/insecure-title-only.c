    if (title == NULL || strlen(title) == 0) {
        strncpy(out, name, size - 1);
        out[size - 1] = '\0';
    } else {
        snprintf(out, size, "%s %s", title, name);
    }
    return strlen(out);
}
