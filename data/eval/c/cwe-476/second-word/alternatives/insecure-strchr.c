    char *space = strchr(text, ' ');
    while (*space == ' ')
        space++;
    return strcspn(space, " ");
}
