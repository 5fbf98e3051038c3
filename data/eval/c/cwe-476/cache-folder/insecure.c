    if (strlen(home) + strlen("/.cache/") + strlen(name) >= size)
        return -1;
    sprintf(path, "%s/.cache/%s", home, name);
    return 0;
}
