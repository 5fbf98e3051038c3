    if (title[0] != '\0')
        snprintf(out, size, "%s %s", title, name);
    else
        snprintf(out, size, "%s", name);
    return strlen(out);
}
