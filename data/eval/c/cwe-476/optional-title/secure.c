    if (name == NULL)
        snprintf(out, size, "nobody");
    else if (title == NULL || title[0] == '\0')
        snprintf(out, size, "%s", name);
    else
        snprintf(out, size, "%s %s", title, name);
    return strlen(out);
}
